"""
The list of tasks: pages by key, newest first, from whichever index holds what is asked for.

A look reads at most WINDOW rows of its source and says where the next one goes on, so that
a search for something rare costs the same over any table. Nothing is counted beyond CAP.
The sources: what runs (cq_task_worker), what waits (cq_task_due, cq_task_parked), what is
pending, waiting or ended badly (cq_task_aside), a family (cq_task_parent, cq_task_root), and
the primary key for the rest.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from cq.definition.status import Status
from cq.models.figures import ASIDE, CAP, look
from cq.models.sql import Dialect

WINDOW = 50_000
MAX_SUBTASKS_COUNTED = 1_000
SHOWN_PAYLOAD = 2_000

_ASIDE = frozenset({"P", "W", "F", "I", "L", "E"})
_CLAIMABLE = frozenset({"Q", "Y"})
_SOURCE = "t.id, t.func_name, t.status, t.queue, t.submitted, t.root_id, t.owner, t.error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is to show; an empty field asks for nothing."""

    statuses: frozenset[Status] = frozenset()
    name: str = ""
    name_part: str = ""
    queue: str = ""
    worker: str = ""
    id: UUID | None = None
    parent: UUID | None = None
    roots: bool = True
    since: datetime | None = None
    until: datetime | None = None
    owner: str = ""
    error_part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """One row of the list."""

    id: UUID
    func_name: str
    status: Status
    queue: str
    run_at: datetime
    submitted: datetime
    started: datetime | None
    finished: datetime | None
    attempts: int
    owner: str | None
    parent_id: UUID | None
    root_id: UUID | None
    children_open: int
    subtasks: int
    error: str | None
    worker: str | None
    done: float | None
    total: float | None
    message: str
    payload: tuple[Any, Any] | None
    """args and kwargs; None if they are large, or were not asked for."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of the list, and the id that the next page goes on below."""

    tasks: list[ListedTask] = field(default_factory=list)
    next: UUID | None = None
    was_cut: bool = False
    """Whether the window ended before the page was full: there may be more further back."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many tasks have a status, as far as was counted."""

    all: int = 0
    roots: int = 0
    is_capped: bool = False


def counts(db: Dialect) -> dict[Status, Count]:
    """
    Count every status in one query, each among its newest CAP rows at most.

    Success has no index of its own: it is counted among the newest CAP rows of the table.
    """
    fails = db.fails("t.parked")
    due = f"t.status IN ('Q', 'Y') AND {fails} ORDER BY t.queue, t.priority DESC, t.run_at"
    parts = {
        **{
            status: f"t.status = '{status}' AND t.status IN {ASIDE} ORDER BY t.id DESC"
            for status in sorted(_ASIDE)
        },
        "QY": due,
        "parked": f"{db.holds('t.parked')} ORDER BY t.func_name",
        "R": "t.worker_id IS NOT NULL ORDER BY t.worker_id",
        "S": "true ORDER BY t.id DESC",
    }
    rows = look(
        db,
        " UNION ALL ".join(
            f"""SELECT '{part}', c.status, COUNT(*), COUNT(*) - COUNT(c.root_id) FROM (
                SELECT t.status, t.root_id FROM cq_task AS t WHERE {where} LIMIT {CAP + 1}
            ) AS c GROUP BY c.status"""
            for part, where in parts.items()
        ),
    )
    scanned = {part: sum(row[2] for row in rows if row[0] == part) for part in parts}
    found: dict[Status, Count] = {}
    for part, letter, all, roots in rows:
        if (part == "S") != (letter == "S"):
            continue
        before = found.get(Status(letter), Count())
        capped = before.is_capped or scanned[part] > CAP
        found[Status(letter)] = Count(before.all + all, before.roots + roots, capped)
    return found


def page(
    db: Dialect,
    wanted: Wanted,
    *,
    before: UUID | None = None,
    size: int = 50,
    with_payload: bool = False,
    deep: frozenset[Status] = frozenset(),
) -> Page:
    """
    The newest tasks that are wanted, below the id `before`.

    `deep` are statuses known to have more rows than CAP; they are read by the primary key,
    since their index is in the order of urgency. One query, which looks for the edge of the
    window only if the page is not full.
    """
    branches = _branches(db, wanted, deep)
    params = _params(db, wanted) | {
        "before": before.hex if before else None,
        "size": size + 1,
        "window": WINDOW,
        "edge": WINDOW - 1,
    }
    below = "AND t.id < %(before)s" if before else ""
    source = _union(branches, _SOURCE, below, "%(window)s")
    edges = _union(branches, "t.id", below, "1 OFFSET %(edge)s")
    rows = look(db, _page_sql(db, source, edges, _conditions(wanted), with_payload), params)
    tasks = [_listed(db, row, with_payload) for row in rows if row[0] is not None]
    if len(tasks) > size:
        return Page(tasks[:size], tasks[size - 1].id)
    last = db.uuid(rows[0][-1])
    if last is None:
        return Page(tasks)
    return Page([task for task in tasks if task.id >= last], last, was_cut=True)


def _branches(db: Dialect, wanted: Wanted, deep: frozenset[Status]) -> list[str]:
    """The sources as `WHERE … ORDER BY …`; `{below}` stands where the key goes."""
    newest = "{below} ORDER BY t.id DESC"
    if wanted.id is not None:
        return [f"t.id = %(id)s {newest}", f"t.root_id = %(id)s {newest}"]
    if wanted.parent is not None:
        return [f"t.parent_id = %(parent)s {newest}"]
    running = "t.worker_id IS NOT NULL {below} ORDER BY t.worker_id"
    if wanted.worker:
        return [running]
    letters = {str(status) for status in wanted.statuses}
    if not letters or "S" in letters or wanted.statuses & deep:
        return [f"true {newest}"]
    branches = [
        f"t.status = '{letter}' AND t.status IN {ASIDE} {newest}"
        for letter in sorted(letters & _ASIDE)
    ]
    if "R" in letters:
        branches.append(running)
    if letters & _CLAIMABLE:
        fails, holds = db.fails("t.parked"), db.holds("t.parked")
        urgency = "{below} ORDER BY t.queue, t.priority DESC, t.run_at"
        branches.append(f"t.status IN ('Q', 'Y') AND {fails} {urgency}")
        branches.append(f"{holds} {{below}} ORDER BY t.func_name")
    return branches


def _union(branches: Sequence[str], columns: str, below: str, limit: str) -> str:
    return " UNION ALL ".join(
        f"SELECT * FROM (SELECT {columns} FROM cq_task AS t "
        f"WHERE {branch.replace('{below}', below)} LIMIT {limit}) AS b{number}"
        for number, branch in enumerate(branches)
    )


def _conditions(wanted: Wanted) -> str:
    texts = {
        "s.status {statuses}": bool(wanted.statuses),
        "s.func_name = %(name)s": bool(wanted.name),
        "LOWER(s.func_name) LIKE %(name_part)s ESCAPE '!'": bool(wanted.name_part),
        "s.queue = %(queue)s": bool(wanted.queue),
        "s.submitted >= %(since)s": wanted.since is not None,
        "s.submitted < %(until)s": wanted.until is not None,
        "s.root_id IS NULL": wanted.roots and wanted.id is None and wanted.parent is None,
        "s.owner = %(owner)s": bool(wanted.owner),
        "LOWER(s.error) LIKE %(error_part)s ESCAPE '!'": bool(wanted.error_part),
        f"s.id IN ({_OF_WORKER})": bool(wanted.worker),
    }
    return " AND ".join(text for text, is_asked in texts.items() if is_asked) or "true"


_OF_WORKER = """SELECT r.id FROM cq_worker AS w JOIN cq_task AS r ON r.worker_id = w.id
    WHERE w.alive AND LOWER(w.hostname || ':' || w.pid) LIKE %(worker)s ESCAPE '!'"""


def _params(db: Dialect, wanted: Wanted) -> dict[str, Any]:
    return {
        "statuses": db.text_list(sorted(wanted.statuses)),
        "name": wanted.name,
        "name_part": _like(wanted.name_part, "%", "%"),
        "queue": wanted.queue,
        "worker": _like(wanted.worker, "", "%"),
        "id": wanted.id.hex if wanted.id else None,
        "parent": wanted.parent.hex if wanted.parent else None,
        "since": db.moment(wanted.since),
        "until": db.moment(wanted.until),
        "owner": wanted.owner,
        "error_part": _like(wanted.error_part, "%", "%"),
    }


def _like(text: str, head: str, tail: str) -> str:
    plain = text.lower()
    for special in "!%_":
        plain = plain.replace(special, f"!{special}")
    return f"{head}{plain}{tail}"


def _page_sql(db: Dialect, source: str, edges: str, conditions: str, with_payload: bool) -> str:
    """The page, a row of NULLs if it is empty; the last column is the edge of the window."""
    conditions = conditions.replace("{statuses}", db.texts("statuses"))
    payload = ", NULL, NULL"
    if with_payload:
        size = "octet_length({}::text)" if db.is_postgres else "length({})"
        payload = "".join(
            f", CASE WHEN {size.format(f't.{column}')} <= {SHOWN_PAYLOAD} THEN "
            f"{f't.{column}::text' if db.is_postgres else f't.{column}'} END"
            for column in ("args", "kwargs")
        )
    return f"""
        WITH k AS (SELECT s.id FROM ({source}) AS s WHERE {conditions}
            ORDER BY s.id DESC LIMIT %(size)s)
        SELECT t.id, t.func_name, t.status, t.queue, t.run_at, t.submitted, t.started, t.finished,
            t.attempts, t.owner, t.parent_id, t.root_id, t.children_open,
            (SELECT COUNT(*) FROM (SELECT 1 FROM cq_task AS c WHERE c.parent_id = t.id
                LIMIT {MAX_SUBTASKS_COUNTED}) AS n),
            SUBSTR(t.error, 1, 300), w.hostname, w.pid, p.done, p.total, p.message{payload}, o.edge
        FROM (SELECT CASE WHEN (SELECT COUNT(*) FROM k) < %(size)s THEN
            (SELECT e.id FROM ({edges}) AS e ORDER BY e.id DESC LIMIT 1) END AS edge) AS o
        LEFT JOIN k ON true
        LEFT JOIN cq_task AS t ON t.id = k.id
        LEFT JOIN cq_worker AS w ON w.id = t.worker_id
        LEFT JOIN cq_progress AS p ON p.task = t.id
        ORDER BY t.id DESC"""


def _listed(db: Dialect, row: tuple[Any, ...], with_payload: bool) -> ListedTask:
    shown = with_payload and row[20] is not None and row[21] is not None
    return ListedTask(
        id=db.uuid(row[0]),  # type: ignore[arg-type]
        func_name=row[1],
        status=Status(row[2]),
        queue=row[3],
        run_at=db.time(row[4]),  # type: ignore[arg-type]
        submitted=db.time(row[5]),  # type: ignore[arg-type]
        started=db.time(row[6]),
        finished=db.time(row[7]),
        attempts=row[8],
        owner=row[9],
        parent_id=db.uuid(row[10]),
        root_id=db.uuid(row[11]),
        children_open=row[12],
        subtasks=row[13],
        error=row[14],
        worker=None if row[15] is None else f"{row[15]}:{row[16]}",
        done=row[17],
        total=row[18],
        message=row[19] or "",
        payload=(json.loads(row[20]), json.loads(row[21])) if shown else None,
    )

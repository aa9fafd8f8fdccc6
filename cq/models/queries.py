"""
Named reads of the engine: the few questions it asks beside its transitions.

Those that lock do so deepest first, then by id, as everybody does. `move_tree` and
`append_errorback` write: where rows belong and whom they tell, and no status.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cq.definition.signature import NewTask
from cq.definition.status import TERMINAL, Status
from cq.models.sql import Dialect, database
from cq.models.task import Task
from cq.models.transitions import PREDECESSOR_FAILED

__all__ = [
    "Relative",
    "append_errorback",
    "database",
    "holder_of_key",
    "holder_of_lost_key",
    "lock_free",
    "lock_relatives",
    "lock_tree",
    "move_tree",
    "open_family",
    "read_relatives",
    "revoked_links",
    "roots_with_company",
    "rows_by_id",
    "statuses_behind",
]


@dataclass(frozen=True, slots=True)
class Relative:
    """A committed row that a new row is attached to, locked."""

    id: UUID
    status: Status
    parent: UUID | None
    root: UUID | None
    depth: int
    result: str | None
    error: str | None
    func_name: str
    queue: str
    previous: UUID | None
    submitted: datetime
    finished: datetime | None

    @property
    def root_uuid(self) -> UUID:
        """The id of the tree's root."""
        return self.root or self.id

    @property
    def is_terminal(self) -> bool:
        """Whether the row has ended."""
        return self.status in TERMINAL


_RELATIVE = (
    "t.id, t.status, t.parent_id, t.root_id, t.depth, t.result, t.error, t.func_name, t.queue, "
    "t.previous_id, t.submitted, t.finished"
)


def lock_relatives(db: Dialect, ids: Iterable[UUID]) -> dict[UUID, Relative]:
    """Read rows and lock them until the transaction ends, deepest first, then by id."""
    return read_relatives(db, ids, lock="FOR NO KEY UPDATE" if db.is_postgres else "")


def read_relatives(db: Dialect, ids: Iterable[UUID], *, lock: str = "") -> dict[UUID, Relative]:
    """Read rows as they are at the moment."""
    rows = db.run(
        f"SELECT {_RELATIVE} FROM cq_task AS t WHERE t.id {db.ids('ids')} "
        f"ORDER BY t.depth DESC, t.id {lock}",
        {"ids": db.id_list(ids)},
    )
    return {row.id: row for row in (_relative(db, row) for row in rows)}


def _relative(db: Dialect, row: Sequence[Any]) -> Relative:
    return Relative(
        id=db.uuid(row[0]),  # type: ignore[arg-type]
        status=Status(row[1]),
        parent=db.uuid(row[2]),
        root=db.uuid(row[3]),
        depth=row[4],
        result=row[5],
        error=row[6],
        func_name=row[7],
        queue=row[8],
        previous=db.uuid(row[9]),
        submitted=db.time(row[10]),  # type: ignore[arg-type]
        finished=db.time(row[11]),
    )


def lock_tree(db: Dialect, root: UUID) -> dict[UUID, Relative]:
    """
    Every row of a tree, locked deepest first, so that nothing in it moves meanwhile.

    Whoever held a row may have added others before it let go: those are locked as well.
    """
    lock = "FOR NO KEY UPDATE" if db.is_postgres else ""
    count = -1
    while True:
        rows = db.run(
            f"SELECT {_RELATIVE} FROM cq_task AS t WHERE t.id = %(root)s OR t.root_id = %(root)s "
            f"ORDER BY t.depth DESC, t.id {lock}",
            {"root": root.hex},
        )
        if len(rows) == count:
            return {row.id: row for row in (_relative(db, row) for row in rows)}
        count = len(rows)


def move_tree(
    db: Dialect, ids: Iterable[UUID], heads: Iterable[UUID], parent: UUID, root: UUID, deeper: int
) -> None:
    """Put a locked tree below a new parent, its heads as that one's children."""
    db.count(
        f"""UPDATE cq_task AS t SET root_id = %(root)s, depth = t.depth + %(deeper)s,
            parent_id = CASE WHEN t.id {db.ids("heads")} THEN %(parent)s ELSE t.parent_id END
        WHERE t.id {db.ids("ids")}""",
        {
            "ids": db.id_list(ids),
            "heads": db.id_list(heads),
            "parent": parent.hex,
            "root": root.hex,
            "deeper": deeper,
        },
    )


def append_errorback(db: Dialect, id: UUID, entry: Mapping[str, Any]) -> None:
    """Note on a locked row whom to call when it ends badly."""
    appended = "errorbacks || %(entry)s::jsonb"
    if not db.is_postgres:
        appended = "json_insert(errorbacks, '$[#]', json_extract(%(entry)s, '$[0]'))"
    db.count(
        f"UPDATE cq_task SET errorbacks = {appended} WHERE id = %(id)s",
        {"id": id.hex, "entry": json.dumps([entry])},
    )


def holder_of_lost_key(db: Dialect, id: UUID) -> UUID | None:
    """The task that has taken the unique key of this ended one meanwhile, if any has."""
    other = """SELECT k.id FROM cq_task AS t JOIN cq_task AS k ON k.func_name = t.func_name
        AND k.unique_key = t.unique_key AND k.id <> t.id WHERE t.id = %(id)s"""
    rows = db.run(
        f"""{other} AND NOT t.unique_running AND {db.fails("k.unique_running")}
        AND k.status IN ('P', 'Q', 'Y')
        UNION ALL
        {other} AND t.unique_running AND {db.holds("k.unique_running")}
        AND k.status IN ('P', 'Q', 'Y', 'R', 'W')""",
        {"id": id.hex},
    )
    return db.uuid(rows[0][0]) if rows else None


def roots_with_company(db: Dialect, roots: Iterable[UUID]) -> set[UUID]:
    """Which of these roots have a stream, or a task that waits for their end."""
    # By one index probe for each, as in `Dialect.linked`.
    found = " UNION ALL ".join(
        f"SELECT k.id FROM {db.listed('roots')} CROSS JOIN LATERAL ({look} LIMIT 1) AS x"
        if db.is_postgres
        else f"SELECT k.id FROM {db.listed('roots')} WHERE EXISTS ({look})"
        for look in (
            "SELECT 1 FROM cq_stream AS s WHERE s.root = k.id",
            "SELECT 1 FROM cq_task AS n WHERE n.previous_id = k.id",
        )
    )
    rows = db.run(found, {"roots": db.id_list(roots)})
    return {db.uuid(row[0]) for row in rows}  # type: ignore[misc]


def revoked_links(db: Dialect, previous: Iterable[UUID]) -> list[UUID]:
    """The tasks that were revoked because one of these, their predecessor, failed."""
    rows = db.run(
        f"SELECT t.id FROM cq_task AS t WHERE t.id {db.linked('previous_id', 'previous')} "
        "AND t.status = 'E' AND t.error = %(reason)s",
        {"previous": db.id_list(previous), "reason": PREDECESSOR_FAILED},
    )
    return [db.uuid(row[0]) for row in rows]  # type: ignore[misc]


def holder_of_key(db: Dialect, task: NewTask) -> Task | None:
    """The row that kept a new one out: the same tick, or an equal task still to be run."""
    # Statuses are literals here: SQLite proves the condition of an index by nothing else.
    running = ", 'R', 'W'" if task.unique_running else ""
    likewise = db.holds if task.unique_running else db.fails
    rows = db.run(
        f"""SELECT k.id FROM cq_task AS k WHERE k.repeating_id = %(repeating)s
        AND k.tick = %(tick)s AND k.tick IS NOT NULL
        UNION ALL
        SELECT k.id FROM cq_task AS k WHERE k.func_name = %(func_name)s
        AND k.unique_key = %(key)s AND k.unique_key IS NOT NULL
        AND {likewise("k.unique_running")}
        AND k.status IN ('P', 'Q', 'Y'{running})""",
        {
            "repeating": task.repeating,
            "tick": db.moment(task.tick),
            "func_name": task.func_name,
            "key": task.unique_key,
        },
    )
    return Task.objects.using(database()).filter(pk=rows[0][0]).first() if rows else None


def rows_by_id(ids: Iterable[UUID]) -> dict[UUID, Task]:
    """Task rows as they are now."""
    return Task.objects.using(database()).in_bulk(list(ids))


def statuses_behind(db: Dialect, tokens: Mapping[UUID, UUID]) -> dict[UUID, Status]:
    """The statuses of those tasks whose latest attempt ended under the given claim token."""
    if not tokens:
        return {}
    rows = [{"id": id.hex, "token": token.hex} for id, token in tokens.items()]
    found = db.run(
        f"""SELECT t.id, t.status FROM {db.recordset("v", {"id": "uuid", "token": "uuid"})}
        JOIN cq_task AS t ON t.id = v.id WHERE t.id {db.ids("ids")} AND t.done_token = v.token""",
        {"rows": json.dumps(rows), "ids": db.id_list(tokens)},
    )
    return {db.uuid(id): Status(status) for id, status in found}  # type: ignore[misc]


def open_family(db: Dialect, id: UUID) -> dict[UUID, UUID | None]:
    """
    Every task at, below or behind this one that is not terminal: what a revoke must end.

    Children of any depth, successors in chains, and children of successors, each with the
    task through which it belongs here. Read level by level: one recursive statement is
    compiled first (JIT, 30 ms) where there are no statistics.
    """
    columns = "SELECT t.id, t.status, t.parent_id, t.previous_id FROM cq_task AS t WHERE t.id"
    below = f"{columns} {db.linked('parent_id', 'ids')} OR t.id {db.linked('previous_id', 'ids')}"
    found: dict[UUID, tuple[Status, UUID | None]] = {}
    level = db.run(f"{columns} = %(id)s", {"id": id.hex})
    while level:
        fresh: dict[UUID, tuple[Status, UUID | None]] = {}
        for row in level:
            own, parent, previous = map(db.uuid, (row[0], *row[2:]))
            if own is not None and own not in found:
                fresh[own] = Status(row[1]), parent if parent in found else previous
        found |= fresh
        level = db.run(below, {"ids": db.id_list(fresh)})
    return {id: above for id, (status, above) in found.items() if status not in TERMINAL}


def lock_free(db: Dialect, ids: Iterable[UUID]) -> list[UUID]:
    """Lock those of the rows that nobody else is moving, and return their ids."""
    rows = db.run(
        f"SELECT t.id FROM cq_task AS t WHERE t.id {db.ids('ids')} "
        f"ORDER BY t.depth DESC, t.id {db.skip_locked}",
        {"ids": db.id_list(ids)},
    )
    return [db.uuid(row[0]) for row in rows]  # type: ignore[misc]

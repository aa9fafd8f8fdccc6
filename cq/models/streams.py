"""
The head of a tree's record: how many of its tasks are open, and its sequence of lines.

A stream row is made when it is first needed, by the first line or by the second task of
a tree; a task that runs alone and logs nothing never has one. These statements come
last in a transaction, since every task of a tree meets at this row.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cq.models.sql import Dialect

LARGEST_LEVEL = 32767


@dataclass(slots=True)
class TreeChange:
    """By how much the number of open tasks of a tree changes in a transaction."""

    delta: int = 0
    grows: bool = False
    base: int = 1
    """Open tasks before this transaction, if the tree has no stream row yet."""


def count_open(db: Dialect, changes: Mapping[UUID, TreeChange]) -> list[UUID]:
    """
    Add the changes to the streams, and close those whose tree has nothing open any more.

    Returns the roots whose tree is over now. A tree of one that never had a stream row
    is over when its only task ended.
    """
    over: list[UUID] = []
    growing = {root: change for root, change in changes.items() if change.grows}
    if growing:
        over += _upsert(db, growing)
    ending = {root: change for root, change in changes.items() if not change.grows and change.delta}
    if ending:
        over += _update(db, ending)
    return over


_CHANGE = {"root": "uuid", "delta": "int", "base": "int"}


def _rows(changes: Mapping[UUID, TreeChange]) -> str:
    return json.dumps(
        [
            {"root": root.hex, "delta": changes[root].delta, "base": changes[root].base}
            for root in sorted(changes)
        ]
    )


def _upsert(db: Dialect, changes: Mapping[UUID, TreeChange]) -> list[UUID]:
    sql = f"""
        INSERT INTO cq_stream AS s (root, seq, open, tree_open)
        SELECT v.root, 0, v.base + v.delta > 0, v.base + v.delta
        FROM {db.recordset("v", _CHANGE)} WHERE true ORDER BY v.root
        ON CONFLICT (root) DO UPDATE SET
            tree_open = s.tree_open + excluded.tree_open - %(base)s,
            open = s.tree_open + excluded.tree_open - %(base)s > 0
        RETURNING root, tree_open
    """
    over: list[UUID] = []
    for base in sorted({change.base for change in changes.values()}):
        alike = {root: change for root, change in changes.items() if change.base == base}
        rows = db.run(sql, {"rows": _rows(alike), "base": base})
        over += [db.uuid(root) for root, left in rows if left <= 0]  # type: ignore[misc]
    return over


def _update(db: Dialect, changes: Mapping[UUID, TreeChange]) -> list[UUID]:
    params = {"rows": _rows(changes), "roots": db.id_list(sorted(changes))}
    held, among = "", ""
    if db.is_postgres and len(changes) > 1:
        held = (
            f"WITH held AS (SELECT h.root FROM cq_stream AS h WHERE h.root {db.ids('roots')} "
            "ORDER BY h.root FOR UPDATE)"
        )
        among = "AND s.root IN (SELECT root FROM held)"
    rows = db.run(
        f"""{held} UPDATE cq_stream AS s SET tree_open = s.tree_open + v.delta,
            open = s.tree_open + v.delta > 0
        FROM {db.recordset("v", _CHANGE)} WHERE s.root = v.root {among}
        {db.returning("s.root, s.tree_open", "s")}""",
        params,
    )
    left = {db.uuid(root): open_tasks for root, open_tasks in rows}
    return [root for root in changes if left.get(root, 0) <= 0]


@dataclass(slots=True)
class Line:
    """One log line on its way into the record."""

    task: UUID
    token: UUID
    attempt: int
    func_name: str
    level: int
    message: str
    at: datetime
    root: UUID


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line with its place in the sequence of its tree."""

    root: UUID
    seq: int
    line: Line


def append(db: Dialect, lines: Sequence[Line]) -> list[Recorded]:
    """
    Give the lines the next numbers of their trees and insert them.

    Lines of an attempt whose claim token is void are discarded; so are those of a tree
    that is closed. Which tree a task belongs to is read from its row, since it may have
    been adopted while it ran. Expects a transaction.
    """
    recorded: list[Recorded] = []
    left = list(lines)
    while left:
        found, left = _number(db, left)
        recorded += found
    insert_lines(db, recorded)
    return recorded


def _number(db: Dialect, lines: Sequence[Line]) -> tuple[list[Recorded], list[Line]]:
    """Number what can be; the rest belongs to trees that were adopted in this very moment."""
    kept = _by_root(db, lines)
    if not kept:
        return [], []
    ends = _advance(db, {root: len(found) for root, found in kept.items()})
    made = [root for root, end in ends.items() if end == len(kept[root])]
    moved = _adopted_meanwhile(db, made, kept)
    recorded = [
        Recorded(root, ends[root] - len(found) + number, line)
        for root, found in kept.items()
        if root in ends and root not in moved
        for number, line in enumerate(found, start=1)
    ]
    return recorded, [line for root in moved for line in kept[root]]


def _by_root(db: Dialect, lines: Sequence[Line]) -> dict[UUID, list[Line]]:
    roots = _current_roots(db, lines)
    kept: dict[UUID, list[Line]] = {}
    for line in lines:
        root = roots.get((line.task, line.token))
        if root is not None:
            kept.setdefault(root, []).append(line)
    return kept


def _adopted_meanwhile(
    db: Dialect, made: Sequence[UUID], kept: Mapping[UUID, Sequence[Line]]
) -> list[UUID]:
    # A stream that had to be made may belong to a tree whose adoption has committed since its
    # root was read. Now that its row is locked, the root can be read for good.
    if not made:
        return []
    now = _by_root(db, [line for root in made for line in kept[root]])
    astray = {line.task for root, found in now.items() if root not in made for line in found}
    moved = [root for root in made if any(line.task in astray for line in kept[root])]
    if moved:
        params = {"roots": db.id_list(moved)}
        db.count(f"DELETE FROM cq_stream WHERE root {db.ids('roots')}", params)
    return moved


def _current_roots(db: Dialect, lines: Sequence[Line]) -> dict[tuple[UUID, UUID], UUID]:
    pairs = {(line.task, line.token) for line in lines}
    rows = json.dumps([{"id": task.hex, "token": token.hex} for task, token in pairs])
    found = db.run(
        f"""SELECT t.id, v.token, COALESCE(t.root_id, t.id)
        FROM {db.recordset("v", {"id": "uuid", "token": "uuid"})}
        JOIN cq_task AS t ON t.id = v.id
        WHERE t.id {db.ids("ids")} AND (t.claim_token = v.token OR t.done_token = v.token)""",
        {"rows": rows, "ids": db.id_list({line.task for line in lines})},
    )
    return {(db.uuid(id), db.uuid(token)): db.uuid(root) for id, token, root in found}  # type: ignore[misc]


def _advance(db: Dialect, counts: Mapping[UUID, int]) -> dict[UUID, int]:
    rows = json.dumps([{"root": root.hex, "n": counts[root]} for root in sorted(counts)])
    found = db.run(
        f"""INSERT INTO cq_stream AS s (root, seq, open, tree_open)
        SELECT v.root, v.n, true, 1 FROM {db.recordset("v", {"root": "uuid", "n": "int"})}
        WHERE true ORDER BY v.root
        ON CONFLICT (root) DO UPDATE SET seq = s.seq + excluded.seq WHERE s.open
        RETURNING root, seq""",
        {"rows": rows},
    )
    return {db.uuid(root): seq for root, seq in found}  # type: ignore[misc]


_LINE = {
    "root": "uuid",
    "seq": "bigint",
    "task": "uuid",
    "attempt": "int",
    "func_name": "text",
    "level": "int",
    "message": "text",
    "at": "time",
}


def insert_lines(db: Dialect, recorded: Sequence[Recorded]) -> None:
    """Insert lines whose numbers are settled."""
    if not recorded:
        return
    rows = [
        {
            "root": item.root.hex,
            "seq": item.seq,
            "task": item.line.task.hex,
            "attempt": item.line.attempt,
            "func_name": item.line.func_name,
            # Python takes any number for a level, the column does not.
            "level": max(-LARGEST_LEVEL, min(item.line.level, LARGEST_LEVEL)),
            "message": item.line.message,
            "at": db.moment(item.line.at),
        }
        for item in recorded
    ]
    db.count(
        f"""INSERT INTO cq_logline (root, seq, task, attempt, func_name, level, message, at)
        SELECT v.root, v.seq, v.task, v.attempt, v.func_name, v.level, v.message, v.at
        FROM {db.recordset("v", _LINE)} WHERE true""",
        {"rows": json.dumps(rows)},
    )


def move_records(db: Dialect, adopted: Mapping[UUID, UUID], also: Iterable[UUID] = ()) -> None:
    """
    Append the lines of each adopted tree to the record of its new root, in their order.

    Every stream that the transaction is going to change is locked here, in the order in
    which all lock them. Expects the rows of the adopted trees to be locked.
    """
    roots = sorted({*adopted, *adopted.values(), *also})
    if db.is_postgres:
        db.run(
            f"SELECT 1 FROM cq_stream WHERE root {db.ids('roots')} ORDER BY root FOR UPDATE",
            {"roots": db.id_list(roots)},
        )
    for source, target in sorted(adopted.items()):
        _move_record(db, {"source": source.hex, "target": target.hex})


def _move_record(db: Dialect, params: dict[str, str]) -> None:
    db.count("UPDATE cq_progress SET root = %(target)s WHERE root = %(source)s", params)
    # Made first where it is not there: whoever is about to make it with a first line has to
    # come before this, or finds the new root after it.
    lines = db.run(
        """INSERT INTO cq_stream AS s (root, seq, open, tree_open) VALUES (%(source)s, 0, false, 0)
        ON CONFLICT (root) DO UPDATE SET open = false RETURNING seq""",
        params,
    )[0][0]
    db.count("DELETE FROM cq_stream WHERE root = %(source)s", params)
    if not lines:
        return
    end = db.run(
        """INSERT INTO cq_stream AS s (root, seq, open, tree_open)
        VALUES (%(target)s, %(n)s, true, 1)
        ON CONFLICT (root) DO UPDATE SET seq = s.seq + excluded.seq
        RETURNING seq""",
        {**params, "n": lines},
    )[0][0]
    db.count(
        "UPDATE cq_logline SET root = %(target)s, seq = seq + %(offset)s WHERE root = %(source)s",
        {**params, "offset": end - lines},
    )

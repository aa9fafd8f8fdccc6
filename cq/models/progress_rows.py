"""
Writing how far tasks have come: one narrow row a task, many in a statement.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cq.models.sql import Dialect


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """The progress of one task."""

    task: UUID
    token: UUID
    root: UUID
    done: float
    total: float | None
    message: str


_PROGRESS = {
    "task": "uuid",
    "token": "uuid",
    "done": "float",
    "total": "float",
    "message": "text",
}


def write_progress(db: Dialect, rows: Sequence[ProgressRow]) -> None:
    """
    Insert or replace the progress of these tasks, each named once.

    Fenced like everything an attempt writes: a void token changes nothing. The tree is
    read from the task's row, since it may have been adopted while it ran.
    """
    values = [
        {
            "task": row.task.hex,
            "token": row.token.hex,
            "done": row.done,
            "total": row.total,
            "message": row.message,
        }
        for row in sorted(rows, key=lambda row: row.task)
    ]
    db.count(
        f"""INSERT INTO cq_progress AS p (task, root, done, total, message, at)
        SELECT v.task, COALESCE(t.root_id, t.id), v.done, v.total, v.message, {db.now}
        FROM {db.recordset("v", _PROGRESS)} JOIN cq_task AS t ON t.id = v.task
        WHERE t.id {db.ids("ids")} AND (t.claim_token = v.token OR t.done_token = v.token)
        ON CONFLICT (task) DO UPDATE SET root = excluded.root, done = excluded.done,
            total = excluded.total, message = excluded.message, at = excluded.at""",
        {"rows": json.dumps(values), "ids": db.id_list(row.task for row in rows)},
    )

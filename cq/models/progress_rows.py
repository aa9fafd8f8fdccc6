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
    root: UUID
    done: float
    total: float | None
    message: str


_PROGRESS = {"task": "uuid", "root": "uuid", "done": "float", "total": "float", "message": "text"}


def write_progress(db: Dialect, rows: Sequence[ProgressRow]) -> None:
    """Insert or replace the progress of these tasks, each named once."""
    values = [
        {
            "task": row.task.hex,
            "root": row.root.hex,
            "done": row.done,
            "total": row.total,
            "message": row.message,
        }
        for row in sorted(rows, key=lambda row: row.task)
    ]
    db.count(
        f"""INSERT INTO cq_progress AS p (task, root, done, total, message, at)
        SELECT v.task, v.root, v.done, v.total, v.message, {db.now}
        FROM {db.recordset("v", _PROGRESS)} WHERE true
        ON CONFLICT (task) DO UPDATE SET root = excluded.root, done = excluded.done,
            total = excluded.total, message = excluded.message, at = excluded.at""",
        {"rows": json.dumps(values)},
    )

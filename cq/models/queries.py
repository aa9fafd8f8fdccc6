"""
Named reads of the engine: the few questions it asks beside its transitions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cq.definition.signature import NewTask
from cq.definition.status import NOT_STARTED, TERMINAL, Status
from cq.models.sql import Dialect, database
from cq.models.task import Task

__all__ = [
    "Relative",
    "database",
    "holder_of_key",
    "lock_heads",
    "lock_relatives",
    "open_family",
    "rows_by_id",
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

    @property
    def root_uuid(self) -> UUID:
        """The id of the tree's root."""
        return self.root or self.id

    @property
    def is_terminal(self) -> bool:
        """Whether the row has ended."""
        return self.status in TERMINAL


_RELATIVE = (
    "t.id, t.status, t.parent_id, t.root_id, t.depth, t.result, t.error, t.func_name, t.queue"
)


def lock_relatives(db: Dialect, ids: Iterable[UUID]) -> dict[UUID, Relative]:
    """Read rows and lock them until the transaction ends, deepest first, then by id."""
    lock = "FOR NO KEY UPDATE" if db.is_postgres else ""
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
    )


def lock_heads(db: Dialect, root: UUID) -> list[Relative]:
    """The rows of a tree that have no parent: its root and what is chained behind it."""
    lock = "FOR NO KEY UPDATE" if db.is_postgres else ""
    rows = db.run(
        f"SELECT {_RELATIVE} FROM cq_task AS t WHERE (t.id = %(root)s OR t.root_id = %(root)s) "
        f"AND t.parent_id IS NULL ORDER BY t.depth DESC, t.id {lock}",
        {"root": root.hex},
    )
    return [_relative(db, row) for row in rows]


def holder_of_key(task: NewTask) -> Task | None:
    """The row that kept a new one out: the same tick, or an equal task still to be run."""
    tasks = Task.objects.using(database())
    if task.tick is not None:
        same = tasks.filter(repeating=task.repeating, tick=task.tick).first()
        if same is not None:
            return same
    if task.unique_key is None:
        return None
    running = {Status.RUNNING, Status.WAITING} if task.unique_running else set()
    return tasks.filter(
        func_name=task.func_name,
        unique_key=task.unique_key,
        unique_running=task.unique_running,
        status__in=sorted(NOT_STARTED | running),
    ).first()


def rows_by_id(ids: Iterable[UUID]) -> dict[UUID, Task]:
    """Task rows as they are now."""
    return Task.objects.using(database()).in_bulk(list(ids))


def open_family(db: Dialect, id: UUID) -> list[tuple[UUID, Status]]:
    """
    Every task at, below or behind this one that is not terminal: what a revoke must end.

    Children of any depth, successors in chains, and children of successors.
    """
    rows = db.run(
        """
        WITH RECURSIVE family(id) AS (
            SELECT t.id FROM cq_task AS t WHERE t.id = %(id)s
            UNION
            SELECT t.id FROM family AS f JOIN cq_task AS t
            ON t.parent_id = f.id OR t.previous_id = f.id
        )
        SELECT t.id, t.status FROM family AS f JOIN cq_task AS t ON t.id = f.id
        WHERE t.status IN ('P', 'Q', 'R', 'Y', 'W') ORDER BY t.depth DESC, t.id
        """,
        {"id": id.hex},
    )
    return [(db.uuid(row[0]), Status(row[1])) for row in rows]  # type: ignore[misc]


def lock_free(db: Dialect, ids: Iterable[UUID]) -> list[UUID]:
    """Lock those of the rows that nobody else is moving, and return their ids."""
    rows = db.run(
        f"SELECT t.id FROM cq_task AS t WHERE t.id {db.ids('ids')} "
        f"ORDER BY t.depth DESC, t.id {db.skip_locked}",
        {"ids": db.id_list(ids)},
    )
    return [db.uuid(row[0]) for row in rows]  # type: ignore[misc]

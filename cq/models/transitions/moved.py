"""
What every transition returns, and the words their statements share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cq.definition.status import Status
from cq.models.sql import Dialect

PREDECESSOR_FAILED = "The predecessor failed."
REVOKED_BY_HAND = "Revoked."


@dataclass(frozen=True, slots=True)
class Moved:
    """A row that changed its status, as the statement left it."""

    id: UUID
    status: Status
    func_name: str
    queue: str
    parent: UUID | None
    root: UUID | None
    depth: int
    error: str | None
    has_errorbacks: bool
    result: str | None

    @property
    def root_uuid(self) -> UUID:
        """The id of the tree's root."""
        return self.root or self.id


MOVED = (
    "t.id, t.status, t.func_name, t.queue, t.parent_id, t.root_id, t.depth, t.error, "
    "CASE WHEN t.errorbacks = '[]' THEN 0 ELSE 1 END"
)


def moved(
    db: Dialect, rows: Iterable[Sequence[Any]], results: Mapping[UUID, str | None] | None = None
) -> list[Moved]:
    """Read rows of the columns MOVED; a result comes behind them, or from the caller."""
    if results is not None:
        rows = [(*row, results[db.uuid(row[0])]) for row in rows]  # type: ignore[index]
    return [
        Moved(
            id=db.uuid(row[0]),  # type: ignore[arg-type]
            status=Status(row[1]),
            func_name=row[2],
            queue=row[3],
            parent=db.uuid(row[4]),
            root=db.uuid(row[5]),
            depth=row[6],
            error=row[7],
            has_errorbacks=bool(row[8]),
            result=row[9] if len(row) > 9 else None,
        )
        for row in rows
    ]


def key_taken(db: Dialect, ids: str, *, revived: bool = False) -> str:
    """
    SQL for "t must come to wait again without its unique key".

    A newer task has taken the key meanwhile, or another of the rows `ids` that this very
    statement moves is to keep it. A task that coalesces while it runs has held its key all
    along, unless it is `revived` after its end.
    """
    same = (
        "SELECT 1 FROM cq_task AS k WHERE k.func_name = t.func_name AND k.id <> t.id "
        "AND k.unique_key = t.unique_key AND k.unique_running = t.unique_running"
    )
    unique = "k.unique_running"
    waiting = f"EXISTS ({same} AND {db.fails(unique)} AND k.status IN ('P', 'Q', 'Y'))"
    active = f"EXISTS ({same} AND {db.holds(unique)} AND k.status IN ('P', 'Q', 'Y', 'R', 'W'))"
    sibling = f"EXISTS ({same} AND k.id < t.id AND k.id {db.ids(ids)})"
    if revived:
        return f"(t.unique_key IS NOT NULL AND ({waiting} OR {active} OR {sibling}))"
    return f"(t.unique_key IS NOT NULL AND NOT t.unique_running AND ({waiting} OR {sibling}))"


def expiry(db: Dialect, status: str, condition: str) -> str:
    """SQL for the moment an ended row may be pruned, where the condition holds."""
    ttl = (
        f"COALESCE(t.result_ttl, CASE WHEN {status} = 'S' THEN %(success_ttl)s "
        "ELSE %(failure_ttl)s END)"
    )
    return f"CASE WHEN {condition} THEN {after(db, ttl)} END"


def after(db: Dialect, seconds: str) -> str:
    """SQL for the moment so many seconds from now."""
    if db.is_postgres:
        return f"{db.now} + {seconds} * interval '1 second'"
    return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {db.now}, '+' || {seconds} || ' seconds')"

"""
Claiming: a worker asks for as many due tasks as it has room for.

A bell is only a hint. Whoever moves a row to Running holds it until it has written its
outcome, or until a rescuer finds the worker dead.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from cq.failpoints import reached
from cq.models import transitions
from cq.models.sql import dialect
from cq.models.transitions import Claimed, Want, next_due
from cq.workflow.transaction import engine_transaction, repeated


def claim(
    worker: UUID, wants: Sequence[Want], queues: Sequence[str] | None = None
) -> list[Claimed]:
    """
    Take due tasks, as many as each want has room for, in the order of their urgency.

    Commits before it returns, so that a worker which dies right after is found by a
    rescuer. Empty when nothing is due, or when the worker was declared dead.
    """
    db = dialect()
    if db.is_postgres:
        claimed = repeated(lambda: transitions.claim(db, worker, wants, queues))
    else:
        claimed = repeated(lambda: _claim_exclusively(worker, wants, queues))
    reached("after_claim_commit", claimed)
    return claimed


def _claim_exclusively(
    worker: UUID, wants: Sequence[Want], queues: Sequence[str] | None
) -> list[Claimed]:
    with engine_transaction() as db:
        return transitions.claim(db, worker, wants, queues)


def claim_named(
    worker: UUID, ids: Sequence[UUID], want: Want, queues: Sequence[str] | None = None
) -> list[Claimed]:
    """Take those of the given tasks that are due and wanted; others are not there to take."""

    def take() -> list[Claimed]:
        with engine_transaction() as db:
            return transitions.claim_named(db, worker, ids, want, queues)

    return repeated(take)


def seconds_to_next(queues: Sequence[str] | None = None) -> float | None:
    """
    Seconds until the next future row is due, by the database's clock; None if none is.

    May be early by a row that this worker cannot run; a look at the table costs little.
    """
    db = dialect()
    found = next_due(db, queues)
    if found is None or isinstance(found, float):
        return found
    return (found - datetime.now(found.tzinfo)).total_seconds()

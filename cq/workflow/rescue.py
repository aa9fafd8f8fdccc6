"""
Rescue: tasks of a dead worker run elsewhere, or are Lost when their budget is spent.

A worker is declared dead by one guarded update of its row; the claim of a task locks
that row too, so that a worker cannot claim on while it dies. Then its Running rows are
taken in batches, passing over those that somebody is moving. The same sweep ends tasks
that expired before they started, and parks those that no live worker can run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from cq import conf
from cq.definition.status import CLAIMABLE, Status
from cq.models import workers
from cq.models.sql import Dialect, dialect
from cq.models.transitions import end_from, park_heads, put_back, unpark
from cq.workflow.aftermath import Aftermath
from cq.workflow.settle import settle
from cq.workflow.transaction import engine_transaction, repeated

BATCH = 200
PARK_BATCH = 5000
_BACKOFF_SECONDS = 1.0


def declare_dead(worker: UUID, beat: int) -> bool:
    """Declare a worker dead unless it has beaten since; one observer wins."""

    def declare() -> bool:
        with engine_transaction() as db:
            return workers.declare_dead(db, worker, beat)

    return repeated(declare)


def rescue_tasks() -> int:
    """
    Put back, or end as Lost, what dead workers were running; return how many.

    Covers every dead worker, also one that was declared dead by somebody who then died.
    """
    rescued = 0
    while True:
        batch = repeated(_rescue_batch)
        rescued += batch
        if batch < BATCH:
            return rescued


def _rescue_batch() -> int:
    settings = conf.current()
    with engine_transaction() as db:
        orphans = workers.orphans(db, BATCH)
        if not orphans:
            return 0
        aftermath = Aftermath()
        back = [row.id for row in orphans if not row.is_spent(settings.max_crashes)]
        spent = [row.id for row in orphans if row.is_spent(settings.max_crashes)]
        if back:
            moved = put_back(db, back, backoff=_BACKOFF_SECONDS)
            aftermath.moved += moved
            for row in moved:
                aftermath.ring(row.queue, [row.id])
        if spent:
            lost = end_from(
                db,
                spent,
                [Status.RUNNING],
                Status.LOST,
                error="The worker died while it ran the task.",
                failure_ttl=settings.failure_ttl,
            )
            settle(db, lost, aftermath)
        aftermath.count(db)
        aftermath.tell_after_commit()
    return len(orphans)


def end_overdue() -> int:
    """Fail tasks that expired before they started, or that nobody could run for too long."""
    settings = conf.current()
    db = dialect()
    expired = workers.expired(db, BATCH)
    unroutable = workers.unroutable(db, BATCH, settings.unroutable_ttl)
    ended = 0
    if expired:
        ended += repeated(partial(_fail, expired, "Expired before it could start."))
    if unroutable:
        reason = f"No worker registered the task for {settings.unroutable_ttl:g} seconds."
        ended += repeated(partial(_fail, unroutable, reason))
    return ended


def _fail(ids: Sequence[UUID], reason: str) -> int:
    with engine_transaction() as db:
        ended = end_from(
            db,
            ids,
            CLAIMABLE,
            Status.FAILURE,
            error=reason,
            failure_ttl=conf.current().failure_ttl,
        )
        aftermath = Aftermath()
        settle(db, ended, aftermath)
        aftermath.count(db)
        aftermath.tell_after_commit()
    return len(ended)


def park_unroutable() -> int:
    """
    Take rows that no live worker registers out of the claim's index, and bring back others.

    Keeps a claim from reading past a heap of rows that it may not take. Returns how many
    rows were moved; each batch is a transaction of its own.
    """
    names = sorted(workers.registered_names(dialect()))
    if not names:
        return 0
    moved = 0
    for step in (park_heads, unpark):
        while batch := repeated(partial(_step, step, names)):
            moved += batch
    return moved


def _step(step: Callable[[Dialect, Sequence[str], int], int], names: Sequence[str]) -> int:
    with engine_transaction() as db:
        return step(db, names, PARK_BATCH)

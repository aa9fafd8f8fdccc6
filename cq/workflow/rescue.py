"""
Rescue: tasks of a dead worker run elsewhere, or are Lost when their budget is spent.

A worker is declared dead by one guarded update of its row; the claim of a task locks
that row too, so that a worker cannot claim on while it dies. Then its Running rows are
taken in batches, passing over those that somebody is moving. The same sweep ends tasks
that expired before they started, and parks those that no live worker can run.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol
from uuid import UUID

from django.db import OperationalError

from cq import conf
from cq.definition.status import CLAIMABLE, Status
from cq.failpoints import reached
from cq.models import workers
from cq.models.sql import Dialect, dialect
from cq.models.transitions import end_from, park_heads, put_back, unpark
from cq.workflow.aftermath import Aftermath
from cq.workflow.settle import settle
from cq.workflow.transaction import engine_transaction, is_lock_timeout, repeated

logger = logging.getLogger("cq.workflow")

BATCH = 200
LOCK_TIMEOUT_MS = 1000
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
    for step in (_put_back, _lose):
        while (batch := step()) == BATCH:
            rescued += batch
        rescued += batch
    return rescued


def _put_back() -> int:
    settings = conf.current()
    find = _orphans(spent=False)

    def work() -> int:
        with engine_transaction() as db:
            moved = put_back(
                db, find(db), backoff=_BACKOFF_SECONDS, max_releases=settings.max_releases
            )
            if moved:
                reached("mid_put_back", moved)
            aftermath = Aftermath(moved=list(moved))
            for row in moved:
                aftermath.ring(row.queue, [row.id])
            aftermath.tell_after_commit()
            return len(moved)

    count = repeated(work) if repeated(partial(_find, find)) else 0
    if count:
        reached("after_put_back")
    return count


def _lose() -> int:
    reason = "The worker died while it ran the task."
    return _end(_orphans(spent=True), [Status.RUNNING], Status.LOST, reason)


def _orphans(*, spent: bool) -> "_Find":
    settings = conf.current()
    return partial(
        workers.orphans,
        limit=BATCH,
        max_crashes=settings.max_crashes,
        max_releases=settings.max_releases,
        spent=spent,
    )


def end_overdue() -> int:
    """Fail tasks that expired before they started, or that nobody could run for too long."""
    ttl = conf.current().unroutable_ttl
    expired = partial(workers.expired, limit=BATCH)
    unroutable = partial(workers.unroutable, limit=BATCH, seconds=ttl)
    waited = f"No worker registered the task for {ttl:g} seconds."
    return _end(expired, CLAIMABLE, Status.FAILURE, "Expired before it could start.") + _end(
        unroutable, CLAIMABLE, Status.FAILURE, waited
    )


class _Find(Protocol):
    def __call__(self, db: Dialect, *, ids: Sequence[UUID] | None = None) -> list[UUID]:
        """Lock the tasks to be ended, any of them or those among `ids`."""
        ...


def _end(find: _Find, sources: Iterable[Status], target: Status, error: str) -> int:
    # An ancestor that somebody holds must not keep the others waiting: they are halved.
    parts, ended = [repeated(partial(_find, find))], 0
    while parts:
        part = parts.pop(0)
        if not part:
            continue
        try:
            work = partial(_end_part, partial(find, ids=part), sources, target, error)
            ended += repeated(work, unless=is_lock_timeout)
        except OperationalError as problem:
            if not is_lock_timeout(problem):
                raise
            half = len(part) // 2
            if half:
                parts += [part[:half], part[half:]]
            else:
                logger.info("Task %s ends when its relatives can be locked.", part[0])
    return ended


def _find(find: _Find) -> list[UUID]:
    # One statement and no transaction, since it nearly always finds nothing: whoever goes on
    # from here looks again under locks.
    return find(dialect())


def _end_part(
    find: Callable[[Dialect], list[UUID]],
    sources: Iterable[Status],
    target: Status,
    error: str,
) -> int:
    with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
        ended = end_from(
            db,
            find(db),
            sources,
            target,
            error=error,
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

"""
The one way out: what attempts came to is written down, in batches, under their tokens.

In one transaction: the own rows first, where the claim token is still valid; then the
children, only for the rows that moved; then successors and ancestors; log lines and
streams last. An attempt whose row does not move is void: nothing it wanted is written.
A batch that the database refuses is halved until the culprit is alone.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import DatabaseError, DataError, IntegrityError

from cq import conf
from cq.definition.failure import describe_exception
from cq.definition.outcome import Crashed, Failed, Outcome, Retrying, Succeeded
from cq.definition.signature import NewTask
from cq.definition.status import TERMINAL, Status
from cq.errors import CQError
from cq.models.sql import Dialect
from cq.models.streams import Line, append
from cq.models.transitions import (
    Claimed,
    EndedChild,
    Ending,
    Moved,
    end_attempts,
    insert,
)
from cq.workflow.aftermath import Aftermath
from cq.workflow.settle import settle
from cq.workflow.subtasks import adopt
from cq.workflow.transaction import (
    engine_transaction,
    is_conflict,
    is_connection_loss,
    repeated,
)

logger = logging.getLogger("cq.workflow")

LOCK_TIMEOUT_MS = 1000


@dataclass(slots=True)
class Completion:
    """An ended attempt, waiting to be written down."""

    claimed: Claimed
    outcome: Outcome
    stores_result: bool = True
    at_most_once: bool = False
    lines: list[Line] = field(default_factory=list)


def complete(batch: Sequence[Completion]) -> dict[UUID, Status]:
    """
    Write ended attempts and everything that follows; return the statuses that resulted.

    An attempt that is missing from the answer was void. Commits before it returns. Safe
    to call again after a lost connection: the tokens of what did commit are used up.
    Raises what the database raises when it is gone.
    """
    try:
        return repeated(lambda: _complete_all(batch))
    except (DatabaseError, CQError, ValueError, TypeError) as problem:
        if is_connection_loss(problem):
            raise
        if len(batch) > 1:
            half = len(batch) // 2
            return {**complete(batch[:half]), **complete(batch[half:])}
        return _complete_culprit(batch[0], problem)


def _complete_all(batch: Sequence[Completion]) -> dict[UUID, Status]:
    with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
        moved = write(db, batch)
    return {row.id: row.status for row in moved}


def _complete_culprit(item: Completion, problem: Exception) -> dict[UUID, Status]:
    # Data that cannot be stored never can be: the task fails, with plain text only. What
    # lost a race for a lock is left to the caller, who tries again later.
    permanent = isinstance(problem, DataError | IntegrityError | CQError | ValueError | TypeError)
    if is_conflict(problem) or not permanent or isinstance(item.outcome, Failed):
        raise problem
    logger.error("What %s came to cannot be stored: %s", item.claimed.func_name, problem)
    error = describe_exception(problem, conf.current().max_error_bytes)
    item.outcome = Failed(error=error)
    item.lines = []
    return repeated(lambda: _complete_all([item]))


def write(db: Dialect, batch: Sequence[Completion]) -> list[Moved]:
    """
    The statements of `complete`, inside the caller's transaction.

    For an atomic body, whose own writes are committed together with its completion; it
    must roll back when its row does not come back.
    """
    settings = conf.current()
    moved = end_attempts(
        db,
        [_ending(item) for item in batch],
        success_ttl=settings.success_ttl,
        failure_ttl=settings.failure_ttl,
    )
    if not moved:
        return moved
    by_id = {row.id: row for row in moved}
    aftermath = Aftermath()
    children = _spawn(db, batch, by_id, aftermath)
    for row in moved:
        if row.status in (Status.QUEUED, Status.RETRY):
            # Also for a retry in a while: the bell makes a worker set its timer to it.
            aftermath.moved.append(row)
            aftermath.ring(row.queue, [row.id])
        elif row.status is Status.WAITING:
            aftermath.moved.append(row)
    settle(db, [row for row in moved if row.status in TERMINAL], aftermath, children)
    lines = [line for item in batch if item.claimed.id in by_id for line in item.lines]
    if lines:
        aftermath.recorded = append(db, lines)
    aftermath.count(db)
    aftermath.tell_after_commit()
    return moved


def _ending(item: Completion) -> Ending:
    claimed, outcome = item.claimed, item.outcome
    if isinstance(outcome, Succeeded):
        own = sum(1 for child in outcome.children if child.parent == claimed.id)
        waits = own > 0 or outcome.adopts is not None
        adopted = outcome.adopts is not None and not any(
            child.id == outcome.adopts for child in outcome.children
        )
        return Ending(
            id=claimed.id,
            token=claimed.token,
            status=Status.WAITING if waits else Status.SUCCESS,
            result=None if waits or outcome.result is None else json.dumps(outcome.result),
            stores_result=item.stores_result,
            # Held open by one until the adopted tree has been counted.
            children=own + (1 if adopted else 0),
            waiting_on=outcome.adopts,
        )
    if isinstance(outcome, Failed | Retrying):
        return Ending(
            id=claimed.id,
            token=claimed.token,
            status=Status.FAILURE if isinstance(outcome, Failed) else Status.RETRY,
            error=str(outcome.error.get("message") or outcome.error.get("type")),
            failure={**outcome.error, "attempt": claimed.attempt},
            delay=None if isinstance(outcome, Failed) else outcome.delay,
        )
    if isinstance(outcome, Crashed):
        lost = item.at_most_once or claimed.crashes + 1 >= conf.current().max_crashes
        return Ending(
            id=claimed.id,
            token=claimed.token,
            status=Status.LOST if lost else Status.QUEUED,
            error=outcome.reason if lost else None,
            crashed=True,
        )
    if claimed.releases >= conf.current().max_releases:
        message = f"Handed back {claimed.releases} times. The last reason: {outcome.reason}"
        return Ending(id=claimed.id, token=claimed.token, status=Status.FAILURE, error=message)
    return Ending(id=claimed.id, token=claimed.token, status=Status.QUEUED)


def _spawn(
    db: Dialect,
    batch: Sequence[Completion],
    by_id: dict[UUID, Moved],
    aftermath: Aftermath,
) -> list[tuple[int, EndedChild]]:
    plans: list[NewTask] = []
    counts: list[tuple[int, EndedChild]] = []
    for item in batch:
        row, outcome = by_id.get(item.claimed.id), item.outcome
        if row is None or not isinstance(outcome, Succeeded):
            continue
        for plan in outcome.children:
            _place(plan, row, counts)
        if outcome.children:
            plans += outcome.children
            aftermath.grown(row.root_uuid, len(outcome.children))
        if outcome.adopts is not None and not any(
            plan.id == outcome.adopts for plan in outcome.children
        ):
            counts += _adopt(db, row, outcome.adopts, aftermath)
    if plans:
        aftermath.inserted(
            row for row in insert(db, plans) if row.id in {p.id for p in plans if _starts(p)}
        )
    return counts


def _place(plan: NewTask, row: Moved, counts: list[tuple[int, EndedChild]]) -> None:
    plan.root = row.root_uuid
    if plan.parent == row.id:
        plan.depth = row.depth + 1
    else:
        # Chained behind the task itself: a sibling, for which the same parent waits.
        plan.parent, plan.depth = row.parent, row.depth
        if row.parent is not None:
            counts.append((row.depth, EndedChild(plan.id, row.parent, count=-1)))


def _starts(plan: NewTask) -> bool:
    return plan.status is Status.QUEUED


def _adopt(
    db: Dialect, row: Moved, child: UUID, aftermath: Aftermath
) -> list[tuple[int, EndedChild]]:
    heads, ended = adopt(db, row, child, aftermath)
    depth = row.depth + 1
    # The row was held open by one; now it is by its real number of children.
    correction = EndedChild(row.id, row.id, count=1 - heads)
    return [(depth, correction), *((depth, child) for child in ended)]

"""
The one way out: what attempts came to is written down, in batches, under their tokens.

In one transaction: the own rows first, where the claim token is still valid; then the
children, only for the rows that moved; then successors and ancestors; log lines and
streams last. An attempt whose row does not move is void: nothing it wanted is written.
A batch that the database refuses is halved until the culprit is alone.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from django.db import DatabaseError, DataError, IntegrityError

from cq import conf
from cq.definition.failure import describe_exception
from cq.definition.outcome import Crashed, Failed, Outcome, Retrying, Succeeded
from cq.definition.payload import dumps
from cq.definition.signature import NewTask
from cq.definition.status import TERMINAL, Status
from cq.errors import CQError
from cq.failpoints import reached
from cq.models.queries import append_errorback, statuses_behind
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
from cq.signals import task_enqueued
from cq.workflow.aftermath import Aftermath
from cq.workflow.enqueue import row_made
from cq.workflow.settle import settle
from cq.workflow.subtasks import adopt
from cq.workflow.transaction import (
    engine_transaction,
    is_busy,
    is_conflict,
    is_lock_timeout,
    repeated,
)

logger = logging.getLogger("cq.workflow")

LOCK_TIMEOUT_MS = 1000
INSERTS = 1000
"""Children in one statement: a tree of ten thousand must not be one of half a second."""


@dataclass(slots=True)
class Completion:
    """An ended attempt, waiting to be written down."""

    claimed: Claimed
    outcome: Outcome
    stores_result: bool = True
    at_most_once: bool = False
    lines: list[Line] = field(default_factory=list)

    @property
    def func_name(self) -> str:
        """The name of the task function."""
        return self.claimed.func_name


@dataclass(slots=True)
class Written:
    """What became of a batch: the statuses that resulted, and what could not be written now."""

    statuses: dict[UUID, Status] = field(default_factory=dict)
    held_up: list[tuple[Completion, Exception]] = field(default_factory=list)


def complete(batch: Sequence[Completion]) -> dict[UUID, Status]:
    """
    Write ended attempts and everything that follows; return the statuses that resulted.

    An attempt that is missing from the answer was void. Commits before it returns. Raises
    what the database raises, after everything that could be written has been. Safe to call
    again then, and after a lost connection: what had been written is told once more.
    """
    written = complete_each(batch)
    if written.held_up:
        raise written.held_up[0][1]
    return written.statuses


def complete_each(batch: Sequence[Completion]) -> Written:
    """
    The same, but what somebody's lock holds up is returned instead of raised.

    The database's refusal of a batch is answered by halving it, level by level, so that a
    culprit keeps up the others for as short as can be. An outage is raised.
    """
    written = Written()
    parts = deque([list(batch)])
    while parts:
        part = parts.popleft()
        try:
            written.statuses |= _complete_all(part)
        except (DatabaseError, CQError, ValueError, TypeError) as problem:
            lasting = _is_lasting(problem)
            if is_busy(problem) or not (lasting or is_conflict(problem)):
                # The connection is lost, the disk is full: nothing that one item could change.
                raise
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[:half], part[half:]]
            elif lasting:
                written.statuses |= _fail_culprit(part[0], problem)
            else:
                written.held_up.append((part[0], problem))
    return written


def _complete_all(batch: Sequence[Completion]) -> dict[UUID, Status]:
    def work() -> dict[UUID, Status]:
        with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
            reached("before_completion", batch)
            moved = write(db, batch)
            statuses = {row.id: row.status for row in moved}
            left = [item.claimed for item in batch if item.claimed.id not in statuses]
            # A commit whose answer was lost: these were written by an earlier call.
            return statuses | statuses_behind(db, {claimed.id: claimed.token for claimed in left})

    statuses = repeated(work, unless=is_lock_timeout)
    reached("after_completion_commit", batch)
    return statuses


def _is_lasting(problem: Exception) -> bool:
    return not is_conflict(problem) and isinstance(
        problem, DataError | IntegrityError | CQError | ValueError | TypeError
    )


def _fail_culprit(item: Completion, problem: Exception) -> dict[UUID, Status]:
    # Data that cannot be stored now never can be: the task fails, and says why.
    logger.error("What %s came to cannot be stored: %s", item.claimed.func_name, problem)
    told = item.outcome.errorbacks if isinstance(item.outcome, Succeeded | Failed) else ()
    error = describe_exception(problem, conf.current().max_error_bytes)
    item.outcome = Failed(error=error, errorbacks=told)
    try:
        return _complete_all([item])
    except (DataError, IntegrityError, ValueError, TypeError):
        logger.error("Nor can its last %d log lines.", len(item.lines))
        item.lines = []
        return _complete_all([item])


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
    reached("mid_completion", moved)
    by_id = {row.id: row for row in moved}
    attempts = {item.claimed.id: item.claimed.attempt for item in batch if item.claimed.id in by_id}
    aftermath = Aftermath(attempts=attempts)
    _note_errorbacks(db, batch, by_id)
    children = _spawn(db, batch, by_id, aftermath)
    moved = list(by_id.values())
    for row in moved:
        if row.status in (Status.QUEUED, Status.RETRY):
            # Also for a retry in a while: the bell makes a worker set its timer to it.
            aftermath.moved.append(row)
            aftermath.ring(row.queue, [row.id])
        elif row.status is Status.WAITING:
            aftermath.moved.append(row)
    settle(db, [row for row in moved if row.status in TERMINAL], aftermath, children)
    lines = [line for item in batch if item.claimed.id in by_id for line in item.lines]
    aftermath.move_records(db)
    if lines:
        aftermath.recorded = append(db, lines)
    aftermath.count(db)
    aftermath.tell_after_commit()
    reached("before_completion_commit", moved)
    return moved


def _note_errorbacks(db: Dialect, batch: Sequence[Completion], by_id: dict[UUID, Moved]) -> None:
    # Not for a Success, of which nobody is to be told; a body that waits may end Incomplete.
    for item in batch:
        row, outcome = by_id.get(item.claimed.id), item.outcome
        if (
            row is None
            or not isinstance(outcome, Succeeded | Failed)
            or row.status is Status.SUCCESS
        ):
            continue
        for entry in outcome.errorbacks:
            append_errorback(db, row.id, entry)
            by_id[row.id] = replace(row, has_errorbacks=True)


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
            result=None if outcome.result is None else dumps(outcome.result),
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
    """
    Adopt what the bodies returned and insert what they planned; say how parents count it.

    Adopted first: a tree may take along others of the batch, and what those have planned.
    """
    adopted: list[EndedChild] = []
    returned = [
        (item.claimed.id, item.outcome)
        for item in batch
        if item.claimed.id in by_id and isinstance(item.outcome, Succeeded)
    ]
    for id, outcome in returned:
        if outcome.adopts is not None and not any(
            plan.id == outcome.adopts for plan in outcome.children
        ):
            heads, ended = adopt(db, id, outcome.adopts, by_id, aftermath)
            # The row was held open by one; now it is by its real number of children.
            adopted += [EndedChild(id, id, count=1 - heads), *ended]
    counts = [(by_id[child.parent].depth + 1, child) for child in adopted]
    plans = [
        (by_id[id], _placed(plan, by_id[id]))
        for id, outcome in returned
        for plan in outcome.children
    ]
    merged = _insert(db, [plan for _, plan in plans], aftermath) if plans else set()
    if plans:
        reached("mid_spawn", [row for row, _ in plans])
    for row, plan in plans:
        if plan.id not in merged:
            aftermath.grown(row.root_uuid, 1)
        if plan.parent == row.id and plan.id in merged:
            counts.append((plan.depth, EndedChild(plan.id, row.id)))
        elif plan.parent not in (row.id, None) and plan.id not in merged:
            counts.append((plan.depth, EndedChild(plan.id, plan.parent, count=-1)))
    return counts


def _placed(plan: NewTask, row: Moved) -> NewTask:
    plan.root = row.root_uuid
    if plan.parent == row.id:
        plan.depth = row.depth + 1
    else:
        # Chained behind the task itself: a sibling, for which the same parent waits.
        plan.parent, plan.depth = row.parent, row.depth
    return plan


def _insert(db: Dialect, plans: Sequence[NewTask], aftermath: Aftermath) -> set[UUID]:
    """Insert the plans; return those that are not made, since an equal task is waiting already."""
    left, merged = list(plans), set[UUID]()
    coalesce = any(plan.unique_key for plan in plans)
    while left:
        later = {plan.id for plan in left} if coalesce else set()
        ready = [plan for plan in left if plan.previous not in later]
        wanted = [plan for plan in ready if plan.previous not in merged]
        # Keys in one order for everybody, so that two batches cannot wait for each other.
        wanted.sort(key=lambda plan: plan.unique_key or "")
        rows = [
            row
            for first in range(0, len(wanted), INSERTS)
            for row in insert(db, wanted[first : first + INSERTS])
        ]
        made = {row.id for row in rows}
        for plan in ready:
            if plan.id not in made:
                merged.add(plan.id)
                logger.info("A planned %s is not made: an equal one waits.", plan.func_name)
        by_id = {plan.id: plan for plan in wanted}
        aftermath.inserted(row for row in rows if by_id[row.id].status is Status.QUEUED)
        if task_enqueued.receivers:
            aftermath.made += [row_made(by_id[row.id], row) for row in rows]
        left = [plan for plan in left if plan.previous in later]
    return merged

"""
Revoke: stop a task, and everything below and behind it.

What has not started never will; what runs loses its claim token, so that nothing it
still does counts, and its worker is told to stop it. Rows that somebody is moving at
the moment are passed over and looked at again, so a revoke never waits for a lock while
it holds one.
"""

import threading
import time
from collections.abc import Collection, Mapping
from functools import partial
from uuid import UUID

from django.db import connections, transaction

from cq import conf
from cq.definition.status import ACTIVE, Status
from cq.errors import WaitTimeout
from cq.failpoints import reached
from cq.models.queries import database, lock_free, open_family, rows_by_id
from cq.models.sql import dialect
from cq.models.task import Task
from cq.models.transitions import REVOKED_BY_HAND, end_from
from cq.workflow import voided
from cq.workflow.aftermath import Aftermath, nudge_after_commit
from cq.workflow.settle import settle
from cq.workflow.transaction import engine_transaction, repeated

_PATIENCE_SECONDS = 10.0
_pause = threading.Event()


def revoke(task: Task | UUID) -> bool:
    """
    Revoke a task with its descendants and successors; True if anything was stopped.

    When it returns none of them will start any more. A running async body is cancelled,
    a running thread cannot be: what it still writes does not count. Revoking a task that
    has ended is no error and changes nothing. Inside an atomic block it takes effect
    after the commit. Raises WaitTimeout when somebody's transaction holds one of the rows
    for too long; the others are revoked then.
    """
    id = task if isinstance(task, UUID) else task.id
    alias = database()
    if connections[alias].in_atomic_block:
        transaction.on_commit(partial(revoke_now, id), using=alias)
        return True
    stopped = revoke_now(id)
    if isinstance(task, Task):
        current = rows_by_id([id]).get(id)
        if current is not None:
            task.status, task.error, task.finished = (
                current.status,
                current.error,
                current.finished,
            )
    return stopped


def revoke_now(id: UUID) -> bool:
    """Revoke pass by pass, until a pass finds nothing open."""
    stopped = False
    deadline = time.monotonic() + _PATIENCE_SECONDS
    orderly = time.monotonic() + _PATIENCE_SECONDS / 2
    while True:
        left = open_family(dialect(), id)
        if not left:
            break
        ended = repeated(partial(_end, left, from_above=time.monotonic() < orderly))
        stopped = stopped or bool(ended)
        if ended:
            deadline = time.monotonic() + _PATIENCE_SECONDS
        elif time.monotonic() > deadline:
            raise WaitTimeout(
                f"{len(left)} of the tasks at and behind {id} could not be revoked: another "
                f"transaction has held their rows for {_PATIENCE_SECONDS:g} seconds. End it, "
                "then revoke again.",
                task_id=id,
            )
        else:
            _pause.wait(0.02)
    return stopped


def _end(family: Mapping[UUID, UUID | None], *, from_above: bool = False) -> list[UUID]:
    with engine_transaction() as db:
        free = lock_free(db, family)
        if from_above:
            free = _not_below_others(family, free)
        if not free:
            return []
        ended = end_from(
            db,
            free,
            ACTIVE,
            Status.REVOKED,
            error=REVOKED_BY_HAND,
            failure_ttl=conf.current().failure_ttl,
        )
        reached("mid_revoke", ended)
        aftermath = Aftermath()
        settle(db, ended, aftermath)
        aftermath.count(db)
        aftermath.tell_after_commit()
        transaction.on_commit(voided.tell, using=database(), robust=True)
        nudge_after_commit(ended)
    return [row.id for row in ended]


def _not_below_others(family: Mapping[UUID, UUID | None], free: Collection[UUID]) -> list[UUID]:
    # What somebody holds is left for the next pass with all below it: a parent whose children
    # are revoked before it would end Incomplete, and tell its errorbacks.
    held = set(family) - set(free)
    for id, above in family.items():
        if above in held:
            held.add(id)
    return [id for id in free if id not in held]

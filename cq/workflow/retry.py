"""
Retry by a person: an ended root runs again, or only what failed below it.

The history stays: children of the earlier generation keep their rows and count no more,
and so do the errors of earlier attempts. Budgets start afresh.
"""

from functools import partial
from uuid import UUID

from django.db import connections, transaction

from cq.definition.status import ERROR
from cq.errors import IllegalTransition
from cq.models.queries import database, lock_relatives, open_family
from cq.models.sql import dialect
from cq.models.task import Task
from cq.models.transitions import Moved, hold_again, run_again
from cq.progress import publisher
from cq.workflow.aftermath import Aftermath
from cq.workflow.transaction import engine_transaction, repeated


def retry(task: Task | UUID) -> None:
    """
    Queue a failed, incomplete, lost or revoked root again.

    Raises IllegalTransition for any other status, for a child (retry its root), and
    while a descendant is still open. Inside an atomic block it takes effect after the
    commit.
    """
    id = task if isinstance(task, UUID) else task.id
    alias = database()
    if connections[alias].in_atomic_block:
        transaction.on_commit(partial(_retry_now, id), using=alias)
        return
    _retry_now(id)
    if isinstance(task, Task):
        task.refresh_from_db()


def _retry_now(id: UUID) -> None:
    repeated(partial(_run_again, id))


def _run_again(id: UUID) -> None:
    with engine_transaction() as db:
        row = lock_relatives(db, [id]).get(id)
        if row is None or row.status not in ERROR:
            state = row.status.label if row else "gone"
            raise IllegalTransition(
                f"Task {id} is {state} and cannot be retried. Only a Failure, Incomplete, Lost "
                "or Revoked task can.",
                task_id=id,
            )
        if row.parent is not None:
            raise IllegalTransition(
                f"Task {id} is a subtask and cannot be retried by itself. Retry its root "
                f"{row.root_uuid}.",
                task_id=id,
            )
        open_rows = [other for other, _ in open_family(db, id) if other != id]
        if open_rows:
            raise IllegalTransition(
                f"Task {id} cannot be retried while {len(open_rows)} of its descendants are "
                "open. Wait for them, or revoke the task first.",
                task_id=id,
            )
        _revive(id, row.root)


def _revive(id: UUID, root: UUID | None) -> None:
    db = dialect()
    aftermath = Aftermath()
    moved = run_again(db, [id], ERROR)
    aftermath.moved += moved
    for row in moved:
        aftermath.ring(row.queue, [row.id])
        _reopen(aftermath, row)
    fresh = moved
    while fresh:
        fresh = hold_again(db, [row.id for row in fresh])
        aftermath.moved += fresh
        for row in fresh:
            _reopen(aftermath, row)
    aftermath.count(db)
    aftermath.tell_after_commit()
    transaction.on_commit(partial(publisher.nudge, (root or id).hex), using=database(), robust=True)


def _reopen(aftermath: Aftermath, row: Moved) -> None:
    aftermath.grown(row.root_uuid, 1, base=0)

"""
Links put onto a committed task from outside its body: successors and errorbacks.

The task's row is locked while its link is inserted, so that it cannot end unseen; if it
has ended already, the link starts at once, or is revoked at once.
"""

from collections.abc import Callable
from typing import Any

from cq import conf
from cq.definition.errorbacks import errorback_entry
from cq.definition.link import plan_link
from cq.definition.status import Status
from cq.errors import InvalidOption
from cq.models.queries import append_errorback, lock_relatives
from cq.models.task import Task
from cq.workflow.aftermath import Aftermath
from cq.workflow.enqueue import insert_new, ring_if_passed_over
from cq.workflow.settle import call_errorbacks
from cq.workflow.transaction import engine_transaction, repeated


def chain(task: Task, fn: Any, /, *args: Any, **kwargs: Any) -> Task:
    """
    Run `fn` after `task` has succeeded, and return the new, Pending task.

    Both share the tree, and the parent waits for both. With `force_chain=True` it runs
    after a failure too, but not after a revoke. Returns at once; safe while `task` runs.
    """
    plan = plan_link(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
    plan.previous = task.id
    plan.status = Status.PENDING
    made = insert_new([plan])[0]
    made.refresh_from_db(fields=["status", "run_at", "previous_result"])
    return made


def errorback(task: Task, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """
    Call `fn(task, error, *args, **kwargs)` once when `task` ends as F, L or I.

    It runs as a task of the same tree. On a task that has ended so already it is
    enqueued at once; on a successful or revoked one it never runs.
    """
    entry = errorback_entry(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
    repeated(lambda: _add(task, entry))
    task.errorbacks = [*task.errorbacks, entry]


def _add(task: Task, entry: dict[str, Any]) -> None:
    with engine_transaction() as db:
        row = lock_relatives(db, [task.id]).get(task.id)
        if row is None:
            raise InvalidOption(
                f"No task {task.id} is there to get an errorback. It may have been pruned, or "
                "its transaction was rolled back."
            )
        if row.is_terminal:
            aftermath = Aftermath()
            if row.status in (Status.FAILURE, Status.LOST, Status.INCOMPLETE):
                call_errorbacks(db, row, [entry], aftermath)
            aftermath.count(db)
            aftermath.tell_after_commit()
            return
        aftermath = Aftermath()
        ring_if_passed_over(row, aftermath)
        aftermath.tell_after_commit()
        append_errorback(db, task.id, entry)

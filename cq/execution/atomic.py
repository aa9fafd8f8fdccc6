"""
Atomic runs: the body's writes and its completion are one transaction.

If the claim token is void when the body has ended, everything it wrote is rolled back:
its effects on the task's own database happen exactly once, or not at all.
"""

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, transaction

from cq.definition.outcome import Succeeded
from cq.definition.signature import TaskFunctionLike
from cq.definition.status import Status
from cq.errors import AttemptVoid
from cq.execution.context import Context
from cq.execution.invocation import succeeded
from cq.execution.notices import tell_ended
from cq.failpoints import reached
from cq.models.queries import database
from cq.models.sessions import prepared
from cq.models.sql import dialect
from cq.models.streams import Line
from cq.workflow.completion import LOCK_TIMEOUT_MS, Completion, write
from cq.workflow.transaction import body_transaction, is_conflict

_TRIES = 5


def run_atomically(
    function: TaskFunctionLike,
    context: Context,
    call: Callable[[], Any],
    lines: Callable[[], list[Line]],
) -> Any:
    """
    Run a body and write its completion in one transaction; return the body's value.

    Raises what the body raises, after a roll-back, and AttemptVoid when somebody else
    has taken the task meanwhile. Called on the thread that owns the connection.
    """
    with body_transaction():
        value = call()
        outcome = succeeded(context, value)
        status = _write(function, context, outcome, lines())
    reached("after_completion_commit", [context.claimed])
    tell_ended(context.claimed, outcome, status)
    return value


def write_atomically(
    function: TaskFunctionLike,
    context: Context,
    fn: Callable[[], Any],
    lines: Callable[[], list[Line]],
) -> Any:
    """The same for the last act of an async body: `cqt.commit(fn)`."""
    value = run_atomically(function, context, fn, lines)
    context.has_committed = True
    return value


def _write(
    function: TaskFunctionLike, context: Context, outcome: Succeeded, lines: list[Line]
) -> Status:
    item = Completion(
        claimed=context.claimed,
        outcome=outcome,
        stores_result=function.options.store_result,
        lines=lines,
    )
    for attempt in range(1, _TRIES + 1):
        try:
            # A savepoint, so that a lock that is not to be had costs the completion only.
            with transaction.atomic(using=database()):
                db = dialect()
                if db.is_postgres:
                    db.first(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                with prepared(db):
                    moved = write(db, [item])
            break
        except DatabaseError as problem:
            if attempt == _TRIES or not is_conflict(problem):
                raise
    if not moved:
        raise AttemptVoid(
            f"Attempt {context.attempt} of task {context.id} is void: somebody else has taken "
            "or ended the task. What it wrote is rolled back; there is nothing to do.",
            task_id=context.id,
        )
    return moved[0].status

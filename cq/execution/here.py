"""
Running a claimed task on the calling thread.

For a child process that runs one task at a time, and for `cq.testing.drain()`: the same
context, the same outcome and the same completion as in a worker, without its loop.
"""

from functools import partial

from django.db import connections

from cq.aio import as_task, from_sync, in_db
from cq.definition.outcome import Crashed, Outcome, Released
from cq.definition.signature import TaskFunctionLike
from cq.definition.status import Status
from cq.errors import AttemptVoid
from cq.execution.atomic import run_atomically, write_atomically
from cq.execution.context import Commit, Context
from cq.execution.invocation import bound, failed, succeeded
from cq.execution.notices import tell_ended, tell_started
from cq.models.queries import database
from cq.models.transitions import Claimed
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder
from cq.workflow.transaction import is_commit_in_doubt, is_connection_loss, open_session


def run_here(claimed: Claimed, function: TaskFunctionLike, recorder: Recorder) -> Status | None:
    """Run a claimed task and write what it came to; None if that was void or done by itself."""
    completion = attempt_here(claimed, function, recorder)
    return None if completion is None else complete_here(completion)


def complete_here(completion: Completion) -> Status | None:
    """Write what an attempt came to; None if it was void. Raises what the database raises."""
    status = complete([completion]).get(completion.claimed.id)
    if status is not None:
        tell_ended(completion.claimed, completion.outcome, status)
    return status


def attempt_here(
    claimed: Claimed, function: TaskFunctionLike, recorder: Recorder
) -> Completion | None:
    """
    Run the body of a claimed task; None if nothing is left to write.

    A sync body runs on this very thread and connection, an async one on a loop of its own.
    """
    buffer = recorder.open(claimed)
    lines = partial(recorder.settle, buffer)

    async def commit(context: Context, fn: object) -> object:
        return await in_db(write_atomically, function, context, fn, lines)  # type: ignore[arg-type]

    context = Context(claimed, buffer, Commit(commit) if function.is_async else None)
    tell_started(claimed)
    outcome: Outcome
    session: object = None
    try:
        if function.options.atomic:
            session = open_session()
        with as_task():
            call = bound(function, context)
            if function.options.atomic and not function.is_async:
                run_atomically(function, context, call, lines)
                return None
            value = from_sync(call)() if function.is_async else call()
        if context.has_committed:
            return None
        outcome = succeeded(context, value)
    except AttemptVoid:
        return None
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001 - a body may raise anything; it ends its own attempt only
        if function.options.atomic and is_commit_in_doubt(problem, session):
            # As in a worker: fenced by the token, this changes nothing if the commit did arrive.
            outcome = _handed_back(function)
        else:
            outcome = failed(function, claimed, problem, buffer.errorbacks)
        _leave_lost_session(problem)
    return Completion(
        claimed=claimed,
        outcome=outcome,
        stores_result=function.options.store_result,
        at_most_once=function.options.at_most_once,
        lines=lines(),
    )


def _leave_lost_session(problem: BaseException) -> None:
    # The completion has only this thread to run on.
    connection = connections[database()]
    if is_connection_loss(problem) and not connection.in_atomic_block:
        connection.close()


def _handed_back(function: TaskFunctionLike) -> Outcome:
    reason = "The connection was lost, perhaps in the commit."
    if function.options.at_most_once:
        return Crashed(f"{reason} It may run only once.")
    return Released(reason)

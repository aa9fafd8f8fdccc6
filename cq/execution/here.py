"""
Running a claimed task on the calling thread.

For a child process that runs one task at a time, and for `cq.testing.drain()`: the same
context, the same outcome and the same completion as in a worker, without its loop.
"""

from functools import partial

from cq.aio import as_task, from_sync, in_db
from cq.definition.outcome import Outcome
from cq.definition.signature import TaskFunctionLike
from cq.definition.status import Status
from cq.errors import AttemptVoid
from cq.execution.atomic import run_atomically, write_atomically
from cq.execution.context import Commit, Context
from cq.execution.invocation import bound, failed, succeeded
from cq.execution.notices import tell_ended, tell_started
from cq.models.transitions import Claimed
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder


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
    try:
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
        outcome = failed(function, claimed, problem)
    return Completion(
        claimed=claimed,
        outcome=outcome,
        stores_result=function.options.store_result,
        at_most_once=function.options.at_most_once,
        lines=lines(),
    )

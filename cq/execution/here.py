"""
Running a claimed task on the calling thread, to its completion.

For a child process that runs one task at a time, and for `cq.testing.drain()`: the same
context, the same outcome and the same completion as in a worker, without its loop.
"""

import asyncio
from functools import partial

from cq.aio import enter_task, from_sync, in_db, leave_task
from cq.definition.outcome import Outcome
from cq.definition.signature import TaskFunctionLike
from cq.definition.status import Status
from cq.errors import AttemptVoid
from cq.execution.atomic import run_atomically, write_atomically
from cq.execution.context import Commit, Context
from cq.execution.invocation import arguments, failed, succeeded
from cq.models.transitions import Claimed
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder


def run_here(claimed: Claimed, function: TaskFunctionLike, recorder: Recorder) -> Status | None:
    """
    Run a claimed task and write what it came to; None if that was void or done by itself.

    A sync body runs on this very thread and connection, an async one on a loop of its own.
    """
    buffer = recorder.open(claimed)
    lines = partial(recorder.settle, buffer)

    async def commit(context: Context, fn: object) -> object:
        return await in_db(write_atomically, function, context, fn, lines)  # type: ignore[arg-type]

    context = Context(claimed, buffer, Commit(commit) if function.is_async else None)
    enter_task()
    outcome: Outcome | None
    try:
        if function.options.atomic and not function.is_async:
            call = partial(function.body, context, *arguments(claimed), **claimed.kwargs)
            run_atomically(function, context, call, lines)
            return None
        body = from_sync(function.body) if function.is_async else function.body
        value = body(context, *arguments(claimed), **claimed.kwargs)
        outcome = None if context.has_committed else succeeded(context, value)
    except AttemptVoid:
        return None
    except (Exception, SystemExit, asyncio.CancelledError) as problem:
        outcome = failed(function, claimed, problem)
    finally:
        leave_task()
    if outcome is None:
        return None
    item = Completion(
        claimed=claimed,
        outcome=outcome,
        stores_result=function.options.store_result,
        at_most_once=function.options.at_most_once,
        lines=lines(),
    )
    return complete([item]).get(claimed.id)

"""
The executor: runs one claimed task and says what it came to.

Async bodies run on the loop, bound to a database lane; sync bodies in a thread; those of
`pool="process"`, and suspects after a crash, in a child process. An `Outcome` comes back
for others to write; None means that nothing is left to write: the body was committed
together with its completion, its outcome was handed over before, or the attempt is void.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from django.db import reset_queries

from cq import conf
from cq.aio import Lanes, Threads, as_task, in_db, in_thread, kept_sessions
from cq.definition.outcome import Outcome
from cq.definition.signature import TaskFunctionLike
from cq.errors import AttemptVoid
from cq.execution.atomic import run_atomically, write_atomically
from cq.execution.attempt import Attempt, Kind, Stopper, StopReason
from cq.execution.context import Commit, Context
from cq.execution.invocation import bound, failed, succeeded
from cq.execution.notices import tell_started
from cq.failpoints import reached
from cq.models.streams import Line
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer
from cq.workflow.transaction import is_commit_in_doubt, open_session

logger = logging.getLogger("cq.worker")


LONG_TRANSACTION = 60.0
"""Seconds after which an atomic body is named in the log."""


def _warn_of_transaction(attempt: Attempt) -> None:
    claimed = attempt.claimed
    logger.warning(
        "%s (task %s) is atomic and has run for %g s. While its transaction is open the database "
        "keeps every dead row, which slows down all claims. Write @task(atomic=False) for long "
        "work, or split it into subtasks.",
        claimed.func_name,
        claimed.id,
        LONG_TRANSACTION,
    )


class LineSource(Protocol):
    """Whoever records the lines of running attempts."""

    def settle(self, buffer: AttemptBuffer) -> list[Line]:
        """Wait for a flush in flight, and hand over what is not recorded yet."""
        ...


class ProcessPool(Protocol):
    """Whoever runs a claimed task in a child process of its own."""

    async def run(self, claimed: Claimed, limit: float | None) -> Outcome | None:
        """Run it to its end, killing it when cancelled; None if the child has completed it."""
        ...


class Executor:
    """Runs attempts in this process; one per worker."""

    def __init__(
        self,
        threads: int,
        lanes: int,
        lines: LineSource,
        processes: ProcessPool,
        stopper: Stopper,
    ) -> None:
        self.threads = Threads(threads, "cq-sync")
        self.lanes = Lanes(lanes, "cq-lane")
        self.running: dict[UUID, Attempt] = {}
        self._lines = lines
        self._processes = processes
        self._stopper = stopper

    def attempt(
        self, claimed: Claimed, function: TaskFunctionLike, buffer: AttemptBuffer
    ) -> Attempt:
        """Make the attempt of a claimed task, of the kind that fits it."""
        kind: Kind = "async" if function.is_async else "thread"
        if function.options.pool == "process" or claimed.crashes > 0:
            kind = "process"
        limit = claimed.timeout or function.options.timeout or conf.current().timeout
        return Attempt(claimed, function, buffer, kind, limit)

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run an attempt to its end; never raises, whatever a body does."""
        token = attempt.claimed.token
        attempt.task = asyncio.current_task()
        self.running[token] = attempt
        timers = self._timers(attempt)
        try:
            if attempt.kind != "process":
                tell_started(attempt.claimed)  # the child tells of its own
            if attempt.kind != "process":
                reached("before_body", [attempt.claimed])
            outcome = await self._run(attempt)
            if attempt.kind != "process":
                reached("after_body", [attempt.claimed])
        except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - not the body's fault
            outcome = self._not_run(attempt, problem)
        finally:
            for timer in timers:
                timer.cancel()
            self.running.pop(token, None)
            self._stopper.end(attempt)
        return None if attempt.is_abandoned else outcome

    def _timers(self, attempt: Attempt) -> list[asyncio.TimerHandle]:
        loop, timers = asyncio.get_running_loop(), []
        if attempt.limit is not None and attempt.kind != "process":
            stop = partial(self._stopper.stop, attempt, StopReason.EXPIRED)
            timers.append(loop.call_later(attempt.limit, stop))
        if attempt.function.options.atomic:
            timers.append(loop.call_later(LONG_TRANSACTION, _warn_of_transaction, attempt))
        return timers

    def _not_run(self, attempt: Attempt, problem: BaseException) -> Outcome | None:
        """What to write when the machinery around the body failed, or was stopped."""
        if attempt.stop_reason is not None:
            return attempt.stopped()
        logger.error("%s could not be run here.", attempt.claimed.func_name, exc_info=problem)
        return attempt.handed_back(f"The worker could not run it: {problem!r}")

    async def _run(self, attempt: Attempt) -> Outcome | None:
        if attempt.kind == "process":
            return await self._processes.run(attempt.claimed, attempt.limit)
        if attempt.kind == "async":
            return await self._run_async(attempt)
        return await in_thread(self.threads, self._in_thread, attempt)

    async def _run_async(self, attempt: Attempt) -> Outcome | None:
        claimed, function = attempt.claimed, attempt.function
        context = Context(claimed, attempt.buffer, Commit(partial(self._commit, attempt)))
        try:
            with as_task(), self.lanes.bound():
                value = await bound(function, context)()
            return None if context.has_committed else succeeded(context, value)
        except AttemptVoid:
            return None
        except BaseException as problem:
            if attempt.stop_reason is not None and not context.has_committed:
                return attempt.stopped()
            if context.has_committed:
                if attempt.stop_reason is None:
                    logger.error("%s raised after cqt.commit()", function.name, exc_info=problem)
                return None
            return failed(function, claimed, problem, attempt.buffer.errorbacks)

    async def _commit(self, attempt: Attempt, context: Context, fn: Callable[[], Any]) -> Any:
        lines = partial(self._lines.settle, attempt.buffer)
        return await in_db(write_atomically, attempt.function, context, fn, lines)

    def _in_thread(self, attempt: Attempt) -> Outcome | None:
        if attempt.stop_reason is not None:
            return None
        with kept_sessions():
            reset_queries()
            with attempt.on_this_thread(), as_task():
                return self._run_body(attempt)

    def _run_body(self, attempt: Attempt) -> Outcome | None:
        claimed, function = attempt.claimed, attempt.function
        context, session = Context(claimed, attempt.buffer), None
        try:
            if function.options.atomic:
                session = open_session()
            call = bound(function, context)
            if function.options.atomic:
                run_atomically(function, context, call, partial(self._lines.settle, attempt.buffer))
                return None
            return succeeded(context, call())
        except AttemptVoid:
            return None
        except BaseException as problem:  # noqa: BLE001 - a body may raise anything; it ends its own attempt only
            if attempt.stop_reason is not None:
                return None
            if function.options.atomic and is_commit_in_doubt(problem, session):
                # Whether the commit arrived is unknown. Handing back is fenced by the token:
                # it changes nothing if the commit did arrive.
                return attempt.handed_back("The connection was lost in the commit.")
            return failed(function, claimed, problem, attempt.buffer.errorbacks)

    def close(self) -> None:
        """End the threads that are idle; one that is stuck ends with its body."""
        self.threads.shutdown(wait=False)
        self.lanes.close()

    def join(self, deadline: float) -> None:
        """Wait until they have closed their sessions, at most to this `time.monotonic()`."""
        self.threads.join(deadline)
        self.lanes.join(deadline)

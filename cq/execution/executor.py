"""
The executor: runs one claimed task and says what it came to.

Async bodies run on the loop, bound to a database lane; sync bodies in a thread; those of
`pool="process"` in a child process of their own. An `Outcome` comes back for others to
write; None means that nothing is left to write: the body was committed together with its
completion, or the attempt is void.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from django.db import close_old_connections, connections, reset_queries
from django.utils import translation

from cq import conf
from cq.aio import Lanes, enter_task, in_db, in_thread
from cq.definition.outcome import Outcome, Released
from cq.definition.signature import TaskFunctionLike
from cq.errors import AttemptVoid, TaskTimeout
from cq.execution.atomic import run_atomically, write_atomically
from cq.execution.context import Commit, Context
from cq.execution.invocation import arguments, failed, succeeded
from cq.models.queries import database
from cq.models.streams import Line
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer
from cq.signals import task_started
from cq.workflow.transaction import is_connection_loss

logger = logging.getLogger("cq.worker")


class LineSource(Protocol):
    """Whoever records the lines of running attempts."""

    def settle(self, buffer: AttemptBuffer) -> list[Line]:
        """Wait for a flush in flight, and hand over what is not recorded yet."""
        ...


class ProcessPool(Protocol):
    """Whoever runs a claimed task in a child process of its own."""

    async def run(self, claimed: Claimed, limit: float | None) -> Outcome | None:
        """Run it to its end; None if the child has completed it."""
        ...


@dataclass(slots=True)
class Attempt:
    """A running attempt, as revoke, shutdown and time limits see it."""

    claimed: Claimed
    function: TaskFunctionLike
    buffer: AttemptBuffer
    task: "asyncio.Task[Any] | None" = None
    thread: int | None = None
    stop_reason: str | None = None
    is_leaked: bool = False
    done: threading.Event = field(default_factory=threading.Event)

    def stop(self, reason: str) -> None:
        """Cancel an async body; a thread is only marked, its slot ends when it does."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if self.task is not None and self.function.is_async:
                self.task.cancel()


VOID = "void"
RELEASED = "released"


class Executor:
    """Runs attempts in this process; one per worker."""

    def __init__(
        self,
        threads: int,
        lanes: int,
        lines: LineSource,
        processes: ProcessPool | None = None,
    ) -> None:
        self.threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="cq-sync")
        self.lanes = Lanes(lanes, "cq-lane")
        self.running: dict[UUID, Attempt] = {}
        self.leaked = 0
        self._lines = lines
        self._processes = processes

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run an attempt to its end; never raises for what a body does."""
        claimed, function = attempt.claimed, attempt.function
        self.running[claimed.token] = attempt
        attempt.task = asyncio.current_task()
        limit = claimed.timeout or function.options.timeout or conf.current().timeout
        if task_started.receivers:
            task_started.send(
                sender=type(self),
                task_id=claimed.id,
                func_name=claimed.func_name,
                attempt=claimed.attempt,
            )
        try:
            if self._processes is not None and (
                function.options.pool == "process" or claimed.crashes > 0
            ):
                return await self._processes.run(claimed, limit)
            if function.is_async:
                return await self._run_async(attempt, limit)
            return await self._run_sync(attempt, limit)
        finally:
            if not attempt.is_leaked:
                self.running.pop(claimed.token, None)
                attempt.done.set()

    async def _run_async(self, attempt: Attempt, limit: float | None) -> Outcome | None:
        claimed, function = attempt.claimed, attempt.function
        context = Context(claimed, attempt.buffer, Commit(partial(self._commit, attempt)))
        enter_task()
        scope = asyncio.timeout(limit)
        try:
            with self.lanes.bound():
                async with scope:
                    value = await function.body(context, *arguments(claimed), **claimed.kwargs)
            return None if context.has_committed else succeeded(context, value)
        except AttemptVoid:
            return None
        except BaseException as problem:  # noqa: BLE001 - a body may raise anything; it ends its own attempt only
            too_long = _too_long(context.func_name, limit or 0.0) if scope.expired() else None
            return self._after_raise(attempt, context, too_long or problem)

    def _after_raise(
        self, attempt: Attempt, context: Context, problem: BaseException
    ) -> Outcome | None:
        if context.has_committed:
            logger.error("%s raised after cqt.commit()", context.func_name, exc_info=problem)
            return None
        if isinstance(problem, asyncio.CancelledError) and attempt.stop_reason is not None:
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()
            return Released(attempt.stop_reason) if attempt.stop_reason == RELEASED else None
        return failed(attempt.function, attempt.claimed, problem)

    async def _commit(self, attempt: Attempt, context: Context, fn: Callable[[], Any]) -> Any:
        lines = partial(self._lines.settle, attempt.buffer)
        return await in_db(write_atomically, attempt.function, context, fn, lines)

    async def _run_sync(self, attempt: Attempt, limit: float | None) -> Outcome | None:
        claimed, function = attempt.claimed, attempt.function
        context = Context(claimed, attempt.buffer)
        body = partial(_in_worker_thread, partial(self._sync_body, attempt, context))
        try:
            async with asyncio.timeout(limit):
                # Shielded: the thread goes on whatever happens to the wait for it.
                return await asyncio.shield(in_thread(self.threads, body))
        except TimeoutError:
            return self._leak(attempt, _too_long(function.name, limit or 0.0))
        except asyncio.CancelledError:
            if attempt.stop_reason is None:
                raise
            return self._leak(attempt, None)

    def _sync_body(self, attempt: Attempt, context: Context) -> Outcome | None:
        claimed, function = attempt.claimed, attempt.function
        attempt.thread = threading.get_ident()
        enter_task()
        try:
            call = partial(function.body, context, *arguments(claimed), **claimed.kwargs)
            if function.options.atomic:
                run_atomically(function, context, call, partial(self._lines.settle, attempt.buffer))
                return None
            return succeeded(context, call())
        except AttemptVoid:
            return None
        except BaseException as problem:  # noqa: BLE001 - a body may raise anything; it ends its own attempt only
            if function.options.atomic and is_connection_loss(problem):
                # Whether the commit arrived is unknown. Handing back is fenced by the token:
                # it changes nothing if the commit did arrive.
                return Released("The connection was lost in the commit.")
            return failed(function, claimed, problem)
        finally:
            if attempt.is_leaked:
                self.running.pop(claimed.token, None)
                self.leaked -= 1
            attempt.done.set()

    def _leak(self, attempt: Attempt, problem: BaseException | None) -> Outcome | None:
        # A thread cannot be killed. Its slot stays taken until it ends by itself, and what
        # it still writes about its task is fenced off by the token that this outcome uses up.
        attempt.is_leaked = True
        self.leaked += 1
        logger.error(
            "%s goes on in its thread after it was to stop; its slot is leaked until it ends.",
            attempt.claimed.func_name,
        )
        if problem is None:
            return None
        return failed(attempt.function, attempt.claimed, problem)

    def close(self) -> None:
        """End the threads that are idle; a leaked one ends with its body."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.lanes.close()


def _in_worker_thread(body: Callable[[], Outcome | None]) -> Outcome | None:
    close_old_connections()
    if connections[database()].force_debug_cursor or connections[database()].queries_logged:
        reset_queries()
    try:
        with translation.override(None):
            return body()
    finally:
        close_old_connections()


def _too_long(name: str, limit: float) -> TaskTimeout:
    return TaskTimeout(
        f"{name} ran longer than its time limit of {limit:g} s. Raise timeout=, or split the work "
        "into subtasks.",
        limit=limit,
    )

"""
A running attempt, as revoke, shutdown and time limits see it.

An async body is cancelled, a child process is killed. A thread can be neither: its
statement in progress is interrupted, every later one is refused, and what it still does
counts for nothing, because its claim token is used up. A body that runs on all the same
is leaked: its slot stays taken until it ends by itself.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from django.db import connections

from cq.definition.outcome import Crashed, Outcome, Released
from cq.definition.signature import TaskFunctionLike
from cq.errors import AttemptVoid, TaskTimeout
from cq.execution.invocation import failed
from cq.models.queries import database
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer

logger = logging.getLogger("cq.worker")

Kind = Literal["async", "thread", "process"]

_CANCEL_SECONDS = 5.0


class StopReason(StrEnum):
    """Why an attempt is to end before its body wants to."""

    VOID = "somebody else has taken or ended the task"
    RELEASED = "the worker stops"
    EXPIRED = "the time limit is over"


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed task on its way through this process."""

    claimed: Claimed
    function: TaskFunctionLike
    buffer: AttemptBuffer
    kind: Kind
    limit: float | None = None
    task: "asyncio.Task[Any] | None" = None
    stop_reason: StopReason | None = None
    is_over: bool = False
    is_abandoned: bool = False
    """Its outcome has been handed over although the body has not ended."""
    is_leaked: bool = False
    _connection: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stopped(self) -> Outcome | None:
        """What an attempt comes to that ended because it was stopped; None is nothing to write."""
        if self.stop_reason is StopReason.RELEASED:
            return self.handed_back("The worker stopped before the task ended.")
        if self.stop_reason is StopReason.EXPIRED:
            return failed(self.function, self.claimed, self.too_long(), self.buffer.errorbacks)
        return None

    def handed_back(self, reason: str) -> Outcome:
        """Give the task back uncharged; one that may run only once has had its run."""
        if self.function.options.at_most_once:
            return Crashed(f"{reason} It may run only once.")
        return Released(reason)

    def too_long(self) -> TaskTimeout:
        """The error of an attempt that outlived its limit."""
        limit = self.limit or 0.0
        return TaskTimeout(
            f"{self.claimed.func_name} ran longer than its time limit of {limit:g} s. Raise "
            "timeout=, or split the work into subtasks.",
            limit=limit,
        )

    @contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """Let the connection of the calling thread be interrupted while the body runs on it."""
        connection = connections[database()]
        with self._lock:
            self._connection = connection
        try:
            with connection.execute_wrapper(self._refuse_when_stopped):
                yield
        finally:
            with self._lock:
                self._connection = None
            if self.stop_reason is not None:
                # An interrupt may still be on its way: it must not hit the next task.
                connection.close()

    def _refuse_when_stopped(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if self.stop_reason is not None:
            raise AttemptVoid(
                f"A statement of attempt {self.claimed.attempt} of task {self.claimed.id} came "
                f"too late: {self.stop_reason}. Nothing it does counts any more; let the body end.",
                task_id=self.claimed.id,
            )
        return execute(sql, params, many, context)

    def interrupt(self) -> None:
        """End the statement that the body's thread is in, if it is in one; blocks a moment."""
        with self._lock:
            raw = getattr(self._connection, "connection", None)
            for name in ("cancel_safe", "cancel", "interrupt"):
                call = getattr(raw, name, None)
                if call is not None:
                    with suppress(Exception):  # a driver may raise anything; the token decides
                        call()
                    return


class Stopper:
    """Stops attempts and gives up on those that do not end; used on the loop alone."""

    def __init__(
        self,
        abandon: Callable[[Attempt, Outcome], object],
        leaked: Callable[[], object],
    ) -> None:
        self._abandon = abandon
        self._on_leak = leaked
        self.leaked = 0

    def stop(self, attempt: Attempt, reason: StopReason) -> None:
        """
        Make an attempt end; a second call does nothing.

        A thread is given up at once, since nothing can end it, and counts as leaked if it
        still runs some seconds later; so does a body that swallows its cancellation.
        """
        if attempt.stop_reason is not None or attempt.is_over:
            return
        attempt.stop_reason = reason
        if attempt.kind == "thread":
            threading.Thread(target=attempt.interrupt, name="cq-interrupt", daemon=True).start()
            self.abandon(attempt)
        elif attempt.task is not None:
            attempt.task.cancel()
        asyncio.get_running_loop().call_later(_CANCEL_SECONDS, self.leak, attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Hand over what a stopped attempt comes to without waiting for its body."""
        if attempt.is_over or attempt.is_abandoned:
            return
        attempt.is_abandoned = True
        outcome = attempt.stopped()
        if outcome is not None:
            self._abandon(attempt, outcome)

    def leak(self, attempt: Attempt) -> None:
        """Note that a stopped body runs on."""
        if attempt.is_over or attempt.is_leaked:
            return
        self.abandon(attempt)
        attempt.is_leaked = True
        self.leaked += 1
        logger.error(
            "%s (task %s) runs on although %s; its slot is leaked until it ends.",
            attempt.claimed.func_name,
            attempt.claimed.id,
            attempt.stop_reason,
        )
        self._on_leak()

    def end(self, attempt: Attempt) -> None:
        """Note that the body has ended."""
        attempt.is_over = True
        if attempt.is_leaked:
            self.leaked -= 1
            logger.warning(
                "%s (task %s) has ended after all.", attempt.claimed.func_name, attempt.claimed.id
            )
        if attempt.stop_reason is not None and attempt.task is not None:
            while attempt.task.cancelling():
                attempt.task.uncancel()

"""
The doors: what one can do to a task row, each a single line into the room that does it.

Rows may not import the workflow above them, yet `task.revoke()` is how people speak.
Every door is resolved through the lazy facade when it is called; none holds any logic.
This file is the one exception that the import contract lists. Each verb has a twin for
coroutines with an `a` in front; the verb itself refuses to block an event loop.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import cq
from cq.aio import in_db, refuse_on_loop
from cq.models.record import TreeRecord

if TYPE_CHECKING:
    from cq.models.task import Task

P = ParamSpec("P")
T = TypeVar("T")

doors: Any = cq
"""The facade, untyped: its names lead above this room and are resolved when they are called."""


def off_the_loop(verb: Callable[P, T]) -> Callable[P, T]:
    """Let a verb refuse to block an event loop, and name its twin."""
    name = verb.__name__

    @wraps(verb)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        refuse_on_loop(f"task.{name}()", f"'await task.a{name}(…)'")
        return verb(*args, **kwargs)

    return guarded


class AsyncVerbs:
    """The twins: each runs its verb on the database thread of the current context."""

    submit: Callable[..., None]
    retry: Callable[..., None]
    revoke: Callable[..., None]
    subtask: Callable[..., Any]
    chain: Callable[..., Any]
    errorback: Callable[..., Any]
    format_logs: Callable[..., str]

    async def asubmit(self, *pre_args: Any) -> None:
        """`submit` for a coroutine."""
        await in_db(self.submit, *pre_args)

    async def aretry(self, *, failed_only: bool = False) -> None:
        """`retry` for a coroutine."""
        await in_db(self.retry, failed_only=failed_only)

    async def arevoke(self) -> None:
        """`revoke` for a coroutine."""
        await in_db(self.revoke)

    async def asubtask(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Task":
        """`subtask` for a coroutine."""
        return await in_db(self.subtask, fn, *args, **kwargs)

    async def achain(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Task":
        """`chain` for a coroutine."""
        return await in_db(self.chain, fn, *args, **kwargs)

    async def aerrorback(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Self:
        """`errorback` for a coroutine."""
        return await in_db(self.errorback, fn, *args, **kwargs)

    async def alogs(self) -> list[dict[str, Any]]:
        """`logs` for a coroutine."""
        return await in_db(getattr, self, "logs")

    async def aformat_logs(self) -> str:
        """`format_logs` for a coroutine."""
        return await in_db(self.format_logs)


class TaskVerbs(TreeRecord, AsyncVerbs):
    """The verbs of a task; the functions behind them say what they guarantee."""

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the task is terminal and return its result (`cq.wait`)."""
        return doors.wait(self, timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait on the event loop until the task is terminal and return its result."""
        return doors.wait_async(self).__await__()  # type: ignore[no-any-return]

    @off_the_loop
    def submit(self, *pre_args: Any) -> None:
        """Queue a task that was made with `submit=False` (`cq.submit`)."""
        doors.submit(self, *pre_args)

    @off_the_loop
    def retry(self, *, failed_only: bool = False) -> None:
        """Run a failed, incomplete, lost or revoked root again (`cq.retry`)."""
        doors.retry(self, failed_only=failed_only)

    @off_the_loop
    def revoke(self) -> None:
        """Stop the task and everything below and behind it (`cq.revoke`)."""
        doors.revoke(self)

    @off_the_loop
    def subtask(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Task":
        """Add a child that this task waits for (`cq.subtask`)."""
        return doors.subtask(self, fn, *args, **kwargs)  # type: ignore[no-any-return]

    @off_the_loop
    def chain(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Task":
        """Run another task after this one (`cq.chain`)."""
        return doors.chain(self, fn, *args, **kwargs)  # type: ignore[no-any-return]

    @off_the_loop
    def errorback(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Self:
        """Call `fn(task, error, *args)` once if this task ends badly (`cq.errorback`)."""
        doors.errorback(self, fn, *args, **kwargs)
        return self


def delay(
    fn: Any,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    submit: bool = True,
    **options: Any,
) -> "Task":
    """Enqueue a task function: the historic spelling of `fn.delay_args(args, kwargs)`."""
    return doors.delay(fn, args, kwargs, submit=submit, **options)  # type: ignore[no-any-return]


def schedule_task(*args: Any, **kwargs: Any) -> Any:
    """Make or update a repeating task, in a data migration too (`cq.schedule_task`)."""
    return doors.schedule_task(*args, **kwargs)

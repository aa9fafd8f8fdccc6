"""
The doors: what one can do to a task row, each a single line into the room that does it.

Rows may not import the workflow above them, yet `task.revoke()` is how people speak.
Every door is resolved through the lazy facade when it is called; none holds any logic.
This file is the one exception that the import contract lists.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import cq
from cq.models.record import TreeRecord

if TYPE_CHECKING:
    from cq.models.task import Task


class TaskVerbs(TreeRecord):
    """The verbs of a task; the functions behind them say what they guarantee."""

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the task is terminal and return its result (`cq.wait`)."""
        return cq.wait(self, timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait on the event loop until the task is terminal and return its result."""
        return cq.wait_async(self).__await__()  # type: ignore[no-any-return]

    def submit(self, *pre_args: Any) -> None:
        """Queue a task that was made with `submit=False` (`cq.submit`)."""
        cq.submit(self, *pre_args)

    def retry(self) -> None:
        """Run a failed, incomplete, lost or revoked root again (`cq.retry`)."""
        cq.retry(self)

    def revoke(self) -> None:
        """Stop the task and everything below and behind it (`cq.revoke`)."""
        cq.revoke(self)

    def subtask(self, fn: Any, *args: Any, **kwargs: Any) -> "Task":
        """Add a child that this task waits for (`cq.subtask`)."""
        return cq.subtask(self, fn, *args, **kwargs)  # type: ignore[no-any-return]

    def chain(self, fn: Any, *args: Any, **kwargs: Any) -> "Task":
        """Run another task after this one (`cq.chain`)."""
        return cq.chain(self, fn, *args, **kwargs)  # type: ignore[no-any-return]

    def errorback(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call `fn(task, error, *args)` once if this task ends badly (`cq.errorback`)."""
        cq.errorback(self, fn, *args, **kwargs)


def delay(
    fn: Any,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    submit: bool = True,
    **options: Any,
) -> "Task":
    """Enqueue a task function: the historic spelling of `fn.delay_args(args, kwargs)`."""
    return cq.delay(fn, args, kwargs, submit=submit, **options)  # type: ignore[no-any-return]


def schedule_task(*args: Any, **kwargs: Any) -> Any:
    """Make or update a repeating task, in a data migration too (`cq.schedule_task`)."""
    return cq.schedule_task(*args, **kwargs)

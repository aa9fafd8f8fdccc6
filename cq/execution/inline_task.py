"""
The task that runs in place: what `delay()` returns under CQ_SERIAL, without a row.

It has the fields, the verbs and the log of a task row, held in memory. What its verbs do
is the business of `inline.py`, which makes the tasks and hands itself in as `Runner`.
"""

import json
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, Protocol, Self
from uuid import UUID

from cq import conf
from cq.aio import inside_task, refuse_on_loop
from cq.definition.errorbacks import errorback_entry
from cq.definition.payload import JSON
from cq.definition.signature import NewTask, TaskFunctionLike, check_call
from cq.definition.status import ERROR, TERMINAL, Status
from cq.errors import DuplicateSubmit, IllegalTransition, InvalidOption, WaitInsideTask
from cq.models.streams import Line
from cq.models.task import Task
from cq.models.transitions import REVOKED_BY_HAND
from cq.models.verbs import AsyncVerbs, off_the_loop


class Runner(Protocol):
    """What runs inline tasks; `inline.py` is the only one."""

    def run(self, task: "InlineTask") -> None:
        """Run a task and what is held behind it, or revoke it if its predecessor has failed."""
        ...

    def link(self, task: "InlineTask", call: tuple[Any, Any, Any]) -> "InlineTask":
        """Run `(fn, args, kwargs)` behind the task."""
        ...

    def child(self, task: "InlineTask", call: tuple[Any, Any, Any]) -> "InlineTask":
        """Run `(fn, args, kwargs)` below the task."""
        ...

    def call_errorback(self, task: "InlineTask", entry: dict[str, JSON]) -> None:
        """Tell one errorback of the task's end."""
        ...


class Relatives(list["InlineTask"]):
    """Children or successors, readable as the related manager of a row is."""

    def all(self) -> Self:
        """All of them, in the order in which they ran."""
        return self

    def first(self) -> "InlineTask | None":
        """The first of them, if there is one."""
        return self[0] if self else None


class InlineTask(AsyncVerbs):
    """A task that ran in place."""

    is_merged = False

    def __init__(self, plan: NewTask, runner: Runner, function: TaskFunctionLike) -> None:
        self.plan = plan
        self.runner = runner
        self.function = function
        self.id = self.pk = plan.id
        self.func_name = plan.func_name
        self.args: list[Any] = json.loads(plan.args)
        self.kwargs: dict[str, Any] = json.loads(plan.kwargs)
        self.parent: InlineTask | None = None
        self.previous: InlineTask | None = None
        self.subtasks, self.next = Relatives(), Relatives()
        self.submitted = datetime.now(UTC)
        self.lines: list[Line] = []
        self.errors: list[dict[str, JSON]] = []
        self.status = plan.status
        self.begin()

    def begin(self) -> None:
        """Forget what an earlier run came to, but not its history."""
        self.value: Any = None
        """What the body's end came to, also where the function stores no result."""
        self.result: Any = None
        self.error: str | None = None
        self.exception: BaseException | None = None
        self.attempts = self.retries = 0
        self.started: datetime | None = None
        self.finished: datetime | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("STATUS_"):
            return getattr(Task, name)
        raise AttributeError(f"A task that ran in place (CQ_SERIAL) has no attribute {name!r}.")

    def __str__(self) -> str:
        return f"{self.func_name} {self.id} ({self.status.label}, in place)"

    __repr__ = __str__

    @property
    def root(self) -> "InlineTask":
        """The head of the tree, which is the task itself if it heads one."""
        task = self
        while (above := task.parent or task.previous) is not None:
            task = above
        return task

    @property
    def root_uuid(self) -> UUID:
        """The id of the head of the tree."""
        return self.root.id

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended; all have but those that wait for `submit()`."""
        return self.status in TERMINAL

    def tree(self) -> "list[InlineTask]":
        """This task, and all below and behind it."""
        found = {self.id: self}
        queue = [self]
        for task in queue:
            for relative in (*task.subtasks, *task.next):
                if relative.id not in found:
                    found[relative.id] = relative
                    queue.append(relative)
        return queue

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The lines of the tree for a root, its own for any other."""
        lines = self.lines
        if self.root is self:
            lines = [line for task in self.tree() for line in task.lines]
            lines.sort(key=lambda line: line.at)
        return [
            {
                "message": line.message,
                "timestamp": line.at,
                "level": line.level,
                "origin": str(line.task),
            }
            for line in lines
        ]

    def format_logs(self) -> str:
        """The messages alone, one a line."""
        return "\n".join(line["message"] for line in self.logs)

    def wait(self, timeout: float | None = None) -> Any:
        """The result: it is there. Refused where a worker would refuse it."""
        refuse_on_loop("task.wait()", "'await task'")
        return self._result()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result()
        yield

    def _result(self) -> Any:
        if inside_task():
            raise WaitInsideTask(
                f"{self.func_name} was waited for in the body of another task, which a worker "
                "refuses. Return the task, or chain what is to follow it."
            )
        return self.result

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to read: there is no row."""

    async def arefresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to read: there is no row."""

    @off_the_loop
    def submit(self, *pre_args: Any) -> None:
        """Run a task that was made with `submit=False`."""
        if self.status is Status.REVOKED:
            return
        if self.status is not Status.PENDING or self.previous is not None:
            raise DuplicateSubmit(
                f"Task {self.id} was submitted again, but it is {self.status.label}. Only a "
                "Pending task made with submit=False and without a predecessor can be submitted.",
                task_id=self.id,
            )
        args = [*pre_args, *self.args]
        check_call(self.function, args, self.kwargs)
        self.args = args
        self.runner.run(self)

    @off_the_loop
    def retry(self, *, failed_only: bool = False) -> None:
        """Run it again if it has ended badly; not a part of it, which has no rows to keep."""
        if failed_only:
            raise InvalidOption(
                f"Task {self.id} ran in place and cannot be retried with failed_only=True. Call "
                "retry() without it, or enqueue the task for a worker."
            )
        if self.status not in ERROR:
            raise IllegalTransition(
                f"Task {self.id} is {self.status.label} and cannot be retried. Only a Failure, "
                "Incomplete, Lost or Revoked task can.",
                task_id=self.id,
            )
        self.begin()
        self.runner.run(self)

    @off_the_loop
    def revoke(self) -> None:
        """Stop what has not run of it and behind it; all else has ended."""
        for task in self.tree():
            if task.status is Status.PENDING:
                task.end(Status.REVOKED, REVOKED_BY_HAND)

    @off_the_loop
    def chain(self, fn: Any, /, *args: Any, **kwargs: Any) -> "InlineTask":
        """Run `fn` now if this one succeeded."""
        return self.runner.link(self, (fn, args, kwargs))

    @off_the_loop
    def subtask(self, fn: Any, /, *args: Any, **kwargs: Any) -> "InlineTask":
        """Run `fn` now as a child of this one."""
        return self.runner.child(self, (fn, args, kwargs))

    @off_the_loop
    def errorback(self, fn: Any, /, *args: Any, **kwargs: Any) -> "InlineTask":
        """Call `fn(task, error, *args)` now if this one has ended badly, else when it does."""
        entry = errorback_entry(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
        if self.status in (Status.FAILURE, Status.INCOMPLETE):
            self.runner.call_errorback(self, entry)
        elif not self.is_terminal:
            self.plan.errorbacks = [*(self.plan.errorbacks or []), entry]
        return self

    def end(self, status: Status, error: str | None = None) -> None:
        """Note how it ended."""
        self.status, self.error, self.finished = status, error, datetime.now(UTC)

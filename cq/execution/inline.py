"""
Running a task in place: a plain call, and `delay()` under CQ_SERIAL.

No row is written. The body, then its subtasks, links and errorbacks run one after the
other in the calling thread, through the same plans and the same JSON as in a worker.
"""

import json
import logging
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from cq import conf
from cq.aio import from_sync, in_db
from cq.definition.errorbacks import errorback_entry
from cq.definition.failure import describe_exception
from cq.definition.link import plan_link, plan_subtask
from cq.definition.payload import JSON
from cq.definition.registry import lookup
from cq.definition.signature import NewTask, Signature, new_task
from cq.definition.status import ERROR, Status
from cq.execution.context import Context, Draft
from cq.execution.errorbacks import call_errorback
from cq.execution.invocation import arguments, succeeded
from cq.models.streams import Line
from cq.models.task import Task
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer

logger = logging.getLogger("cq.task")


class InlineTask:
    """A task that ran in place: what `delay()` returns under CQ_SERIAL."""

    def __init__(self, plan: NewTask, parent: "InlineTask | None" = None) -> None:
        self.plan = plan
        self.id: UUID = plan.id
        self.func_name = plan.func_name
        self.parent = parent
        self.root: InlineTask = parent.root if parent else self
        self.previous: InlineTask | None = None
        self.status = Status.PENDING
        self.result: Any = None
        self.error: str | None = None
        self.errors: list[dict[str, JSON]] = []
        self.retries = 0
        self.exception: BaseException | None = None
        self.subtasks: list[InlineTask] = []
        self.submitted = datetime.now(UTC)
        self._lines: list[Line] = []

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The lines of the tree for a root, its own for any other."""
        lines = self.root._lines
        if self.root is not self:
            lines = [line for line in lines if line.task == self.id]
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
        """The result: it is there."""
        return self.result

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result
        yield

    def refresh_from_db(self) -> None:
        """Nothing to read: there is no row."""

    def revoke(self) -> None:
        """Nothing to stop: it has ended."""

    def chain(self, fn: Any, *args: Any, **kwargs: Any) -> "InlineTask":
        """Run `fn` now if this one succeeded."""
        plan = plan_link(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
        plan.previous = self.id
        made = InlineTask(plan, self.parent)
        made.root = self.root
        made.previous = self
        _run_link(made, self)
        return made

    def subtask(self, fn: Any, *args: Any, **kwargs: Any) -> "InlineTask":
        """Run `fn` now as a child of this one."""
        plan = plan_subtask(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
        made = InlineTask(plan, self)
        _run(made)
        self.subtasks.append(made)
        return made

    def errorback(self, fn: Any, *args: Any, **kwargs: Any) -> None:
        """Call `fn(task, error, *args)` now if this one has failed."""
        entry = errorback_entry(fn, args, kwargs)
        self.plan.errorbacks = [*(self.plan.errorbacks or []), entry]
        if self.status in (Status.FAILURE, Status.INCOMPLETE):
            _call_errorback(self, entry)


def call_in_place(signature: Signature) -> Any:
    """Run a sync task function with everything it asks for; return its value or raise."""
    task = run_in_place(signature)
    if task.exception is not None:
        raise task.exception
    return task.result


def run_in_place(signature: Signature) -> InlineTask:
    """Run a signature as CQ_SERIAL does and return the ended task, whatever it came to."""
    limit = conf.current().max_args_bytes
    task = InlineTask(new_task(signature, max_args_bytes=limit))
    _run(task)
    return task


async def acall_in_place(signature: Signature) -> Any:
    """The same for an async task function, on the running loop."""
    limit = conf.current().max_args_bytes
    task = InlineTask(new_task(signature, max_args_bytes=limit))
    context = _context(task)
    try:
        value = await signature.function.body(
            context, *arguments(context.claimed), **context.claimed.kwargs
        )
    except Exception as problem:
        _fail(task, context, problem)
        raise
    await in_db(_finish, task, context, value)
    if task.exception is not None:
        raise task.exception
    return task.result


def _run(task: InlineTask, previous: "InlineTask | None" = None) -> None:
    function = lookup(task.func_name)
    context = _context(task, previous)
    budget = function.options.retry.retries
    if task.plan.max_retries is not None:
        budget = task.plan.max_retries
    while True:
        try:
            body = from_sync(function.body) if function.is_async else function.body
            value = body(context, *arguments(context.claimed), **context.claimed.kwargs)
            _finish(task, context, value)
        except Exception as problem:  # noqa: BLE001 - what a body raises is the task's outcome
            if task.retries < budget and function.options.retry.wants(problem):
                task.errors.append(describe_exception(problem, conf.current().max_error_bytes))
                task.retries += 1
                context = _context(task, previous)
                continue
            _fail(task, context, problem)
        return


def _context(task: InlineTask, previous: "InlineTask | None" = None) -> Context:
    plan = task.plan
    claimed = Claimed(
        id=plan.id,
        token=uuid4(),
        func_name=plan.func_name,
        args=json.loads(plan.args),
        kwargs=json.loads(plan.kwargs),
        root=task.root.id,
        parent=task.parent.id if task.parent else None,
        previous=plan.previous,
        previous_result=previous.result if previous else None,
        pass_result=plan.pass_result,
        depth=plan.depth,
        attempt=task.retries + 1,
        retries=task.retries,
        crashes=0,
        releases=0,
        max_retries=plan.max_retries,
        timeout=plan.timeout,
        queue=plan.queue,
        is_root=task.parent is None,
    )
    return InlineContext(claimed, AttemptBuffer(conf.current().max_lines), inline=task)


class InlineContext(Context):
    """A context without rows: its relatives are in memory too."""

    def __init__(self, claimed: Claimed, buffer: AttemptBuffer, inline: InlineTask) -> None:
        super().__init__(claimed, buffer)
        self._inline = inline

    @property
    def task(self) -> Any:
        """The task that runs in place."""
        return self._inline

    @property
    def parent(self) -> Any:
        """Its parent, which ran in place too, or None."""
        return self._inline.parent

    @property
    def root(self) -> Any:
        """The task that was called."""
        return self._inline.root


def _finish(task: InlineTask, context: Context, value: Any) -> None:
    task.root._lines += context.buffer.take(everything=True)
    outcome = succeeded(context, value)
    made: dict[UUID, InlineTask] = {}
    for plan in outcome.children:
        made[plan.id] = _run_plan(task, plan, made)
    failed = [child for child in made.values() if child.status in ERROR]
    task.result = outcome.result
    if isinstance(value, InlineTask):
        task.result = value.result
    elif isinstance(value, Draft | Task):
        chosen = made.get(value.id)
        task.result = chosen.result if chosen else getattr(value, "result", None)
    task.status = Status.INCOMPLETE if failed else Status.SUCCESS
    if failed:
        task.exception, task.error = failed[0].exception, failed[0].error
        _call_errorbacks(task)


def _run_plan(task: InlineTask, plan: NewTask, made: dict[UUID, InlineTask]) -> InlineTask:
    child = InlineTask(plan, task if plan.parent == task.id else task.parent)
    child.root = task.root
    previous = made.get(plan.previous) if plan.previous else None
    if plan.previous == task.id:
        previous = task
    if previous is None:
        _run(child)
    else:
        child.previous = previous
        _run_link(child, previous)
    task.subtasks.append(child)
    return child


def _run_link(link: InlineTask, previous: InlineTask) -> None:
    succeeded_before = previous.status not in ERROR
    if succeeded_before or link.plan.force_chain:
        _run(link, previous if succeeded_before else None)
    else:
        link.status, link.error = Status.REVOKED, "The predecessor failed."


def _fail(task: InlineTask, context: Context, problem: BaseException) -> None:
    task.root._lines += context.buffer.take(everything=True)
    error = describe_exception(problem, conf.current().max_error_bytes)
    task.errors.append(error)
    task.error = str(error.get("message") or error.get("type"))
    task.exception, task.status = problem, Status.FAILURE
    _call_errorbacks(task)


def _call_errorbacks(task: InlineTask) -> None:
    for entry in task.plan.errorbacks or []:
        _call_errorback(task, entry)


def _call_errorback(task: InlineTask, entry: Any) -> None:
    call_errorback(_context(task), task, task.error, entry)

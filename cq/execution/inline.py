"""
Running a task in place: a plain call, and `delay()` under CQ_SERIAL.

No row of cq is written. The body, then its subtasks, links and errorbacks run one after
the other in the calling thread. `delay()` under CQ_SERIAL comes as close to a worker as
that allows: the same plans and JSON, retries (without the wait), a transaction for an
atomic body. A plain call is a call: its own body runs once, with the arguments as they
are, in the caller's transaction, and what it raises is raised.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from cq import conf
from cq.aio import as_task, from_sync, in_db
from cq.definition.ids import uuid7
from cq.definition.link import plan_link, plan_subtask
from cq.definition.outcome import Retrying, Succeeded
from cq.definition.payload import JSON
from cq.definition.registry import lookup
from cq.definition.signature import NewTask, Signature, TaskFunctionLike, new_task
from cq.definition.status import ERROR, Status
from cq.errors import InvalidOption
from cq.execution.context import Commit, Context, Draft, Predecessor
from cq.execution.errorbacks import call_errorback
from cq.execution.inline_task import InlineTask
from cq.execution.invocation import arguments, failed, succeeded
from cq.models.queries import database
from cq.models.transitions import PREDECESSOR_FAILED, Claimed
from cq.progress.buffer import AttemptBuffer

logger = logging.getLogger("cq.task")


def call_in_place(function: TaskFunctionLike, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a sync task function with everything it asks for; return its value or raise."""
    context = _context_of_call(function)
    with as_task():
        value = function.body(context, *args, **kwargs)
    return _after_call(context, value)


async def acall_in_place(
    function: TaskFunctionLike, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """The same for an async task function, on the running loop."""
    context = _context_of_call(function)
    with as_task():
        value = await function.body(context, *args, **kwargs)
    if not context.drafts and not isinstance(value, InlineTask):
        return value
    return await in_db(_after_call, context, value)


def _context_of_call(function: TaskFunctionLike) -> "InlineContext":
    plan = NewTask(id=uuid7(), func_name=function.name, args="[]", kwargs="{}")
    task = InlineTask(plan, runner, function)
    task.attempts, task.started = 1, task.submitted
    return InlineContext(task)


def _after_call(context: "InlineContext", value: Any) -> Any:
    task = context.inline
    if not context.drafts and not isinstance(value, InlineTask):
        return value
    outcome = Succeeded(result=value, children=context.drafts)
    if isinstance(value, Draft):
        outcome = succeeded(context, value)
    _finish(context, value, outcome)
    if task.exception is not None:
        raise task.exception
    return task.value


def run_in_place(signature: Signature) -> InlineTask:
    """Run a signature as CQ_SERIAL does and return the task, whatever it came to."""
    plan = new_task(signature, max_args_bytes=conf.current().max_args_bytes)
    task = InlineTask(plan, runner, signature.function)
    parent, previous = signature.options.parent, signature.options.previous
    for role, relative in (("parent", parent), ("previous", previous)):
        if relative is not None and not isinstance(relative, InlineTask):
            raise InvalidOption(
                f"{role} is {relative!r}, which did not run in place. Under CQ_SERIAL only a "
                "task that ran so can be one."
            )
    if previous is not None:
        _attach_link(task, previous)
    elif parent is not None:
        _attach_child(task, parent)
    if previous is not None or signature.options.submit:
        runner.run(task)
    return task


class _Runner:
    """The verbs of inline tasks."""

    def run(self, task: InlineTask) -> None:
        """Run a task and what is held behind it, or revoke it if its predecessor has failed."""
        previous = task.previous
        if previous is not None and not previous.is_terminal:
            task.status = Status.PENDING
            return
        if previous is not None and previous.status in ERROR and not task.plan.force_chain:
            task.end(Status.REVOKED, PREDECESSOR_FAILED)
        else:
            _run(task)
        for link in task.next:
            if link.status is Status.PENDING:
                self.run(link)

    def link(self, task: InlineTask, call: tuple[Any, Any, Any]) -> InlineTask:
        """Run `(fn, args, kwargs)` behind the task; one that is still held, holds it too."""
        link = _inline(plan_link(*call, max_args_bytes=conf.current().max_args_bytes))
        _attach_link(link, task)
        self.run(link)
        return link

    def child(self, task: InlineTask, call: tuple[Any, Any, Any]) -> InlineTask:
        """Run `(fn, args, kwargs)` below the task."""
        child = _inline(plan_subtask(*call, max_args_bytes=conf.current().max_args_bytes))
        _attach_child(child, task)
        self.run(child)
        return child

    def call_errorback(self, task: InlineTask, entry: dict[str, JSON]) -> None:
        """Tell one errorback of the task's end; what it raises is logged, as in a worker."""
        context = InlineContext(task)
        try:
            call_errorback(context, task, task.error, entry)
        except Exception as problem:
            logger.error("The errorback %s failed", entry["path"], exc_info=problem)
        task.lines += context.buffer.take(everything=True)


runner = _Runner()


def _inline(plan: NewTask) -> InlineTask:
    return InlineTask(plan, runner, lookup(plan.func_name))


def _attach_child(task: InlineTask, parent: InlineTask) -> None:
    task.parent = parent
    task.plan.depth = parent.plan.depth + 1
    parent.subtasks.append(task)


def _attach_link(task: InlineTask, previous: InlineTask) -> None:
    task.previous, task.parent = previous, previous.parent
    task.plan.previous, task.plan.depth = previous.id, previous.plan.depth
    previous.next.append(task)
    if task.parent is not None:
        task.parent.subtasks.append(task)


class InlineContext(Context):
    """A context without rows: its relatives are in memory too."""

    def __init__(self, task: InlineTask) -> None:
        committer = Commit(_commit) if task.function.is_async else None
        super().__init__(_claimed(task), AttemptBuffer(conf.current().max_lines), committer)
        self.inline = task

    @property
    def task(self) -> Any:
        """The task that runs in place."""
        return self.inline

    @property
    def parent(self) -> Any:
        """Its parent, which ran in place too, or None."""
        return self.inline.parent

    @property
    def root(self) -> Any:
        """The head of the tree."""
        return self.inline.root

    @property
    def previous(self) -> Predecessor | None:
        """The predecessor, which ran in place too, or None."""
        previous = self.inline.previous
        if previous is None:
            return None
        return Predecessor(previous.id, self.claimed.previous_result, lambda: previous)


def _claimed(task: InlineTask) -> Claimed:
    plan, previous = task.plan, task.previous
    has_result = previous is not None and previous.status is Status.SUCCESS
    return Claimed(
        id=task.id,
        token=uuid4(),
        func_name=task.func_name,
        args=task.args,
        kwargs=task.kwargs,
        root=task.root.id,
        parent=task.parent.id if task.parent else None,
        previous=previous.id if previous else None,
        previous_result=previous.value if previous and has_result else None,
        pass_result=plan.pass_result,
        depth=plan.depth,
        attempt=task.attempts,
        retries=task.retries,
        crashes=0,
        releases=0,
        max_retries=plan.max_retries,
        timeout=plan.timeout,
        queue=plan.queue,
        is_root=task.root is task,
    )


async def _commit(context: Context, fn: Callable[[], Any]) -> Any:
    value = await in_db(_in_transaction, fn)
    context.has_committed = True
    return value


def _in_transaction(fn: Callable[[], Any]) -> Any:
    with transaction.atomic(using=database()):
        return fn()


def _run(task: InlineTask) -> None:
    while True:
        task.attempts += 1
        task.status, task.started = Status.RUNNING, datetime.now(UTC)
        context = InlineContext(task)
        try:
            value, outcome = _attempt(task.function, context)
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - the task's own outcome
            task.lines += context.buffer.take(everything=True)
            told = context.buffer.errorbacks
            ended = failed(task.function, context.claimed, problem, told)
            task.errors.append({**ended.error, "attempt": task.attempts})
            if isinstance(ended, Retrying):
                task.retries += 1
                continue
            task.exception = problem
            task.end(Status.FAILURE, str(ended.error.get("message") or ended.error.get("type")))
            _tell_errorbacks(task, told)
            return
        _finish(context, value, outcome)
        return


def _attempt(function: TaskFunctionLike, context: InlineContext) -> tuple[Any, Succeeded]:
    body = from_sync(function.body) if function.is_async else function.body
    scope: AbstractContextManager[Any] = nullcontext()
    if function.options.atomic and not function.is_async:
        scope = transaction.atomic(using=database())
    with as_task(), scope:
        value = body(context, *arguments(context.claimed), **context.claimed.kwargs)
        if isinstance(value, InlineTask):
            return value, Succeeded(children=context.drafts)
        return value, succeeded(context, value)


def _finish(context: InlineContext, value: Any, outcome: Succeeded) -> None:
    task = context.inline
    task.lines += context.buffer.take(everything=True)
    task.value = outcome.result
    made: dict[UUID, InlineTask] = {}
    for plan in outcome.children:
        if plan.parent == task.id:
            made[plan.id] = _run_plan(task, plan, made)
    chosen = made.get(value.id) if isinstance(value, Draft) else None
    if isinstance(value, InlineTask):
        chosen = _adopt(task, value)
    if chosen is not None:
        task.value = chosen.value
    _settle(task, outcome)
    made[task.id] = task
    for plan in outcome.children:
        if plan.id not in made:
            made[plan.id] = _run_plan(task, plan, made)


def _run_plan(task: InlineTask, plan: NewTask, made: dict[UUID, InlineTask]) -> InlineTask:
    child = _inline(plan)
    if plan.previous is None:
        _attach_child(child, task)
    else:
        _attach_link(child, made[plan.previous])
    runner.run(child)
    return child


def _adopt(task: InlineTask, given: InlineTask) -> InlineTask:
    head = given.root
    if head is not task.root:
        for member in head.tree():
            if member.parent is None:
                member.parent = task
                task.subtasks.append(member)
    return given


def _settle(task: InlineTask, outcome: Succeeded) -> None:
    failed = [child for child in task.subtasks if child.status in ERROR]
    if task.function.options.store_result:
        task.result = task.value
    if not failed:
        task.end(Status.SUCCESS)
        return
    told = [child for child in failed if child.error != PREDECESSOR_FAILED] or failed
    task.exception = told[0].exception
    task.end(Status.INCOMPLETE, told[0].error)
    _tell_errorbacks(task, outcome.errorbacks)


def _tell_errorbacks(task: InlineTask, said: Sequence[dict[str, JSON]]) -> None:
    for entry in [*(task.plan.errorbacks or []), *said]:
        runner.call_errorback(task, entry)  # type: ignore[arg-type]

"""
The test kit: run tasks in a test through the real path, without a worker.

`drain()` claims, executes and completes every due task in the calling process, until
nothing is due: what a worker does, on the test's own thread and connection. It works
inside `TestCase` (commits become savepoints) and on the in-memory SQLite database, and
leaves no connection, thread or transaction behind. Plain `assert` does the rest.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connections, transaction
from django.db.models import F, Min
from django.test.utils import override_settings

from cq import conf
from cq.aio import in_db, joined_loop_thread, refuse_on_loop
from cq.definition import registry
from cq.definition.options import RunAfter as Moment
from cq.definition.options import check_moment, check_queue, check_seconds
from cq.definition.signature import TaskFunctionLike
from cq.definition.status import CLAIMABLE, NOT_STARTED, TERMINAL, Status
from cq.errors import IllegalTransition, InvalidOption, WaitInsideTask, WaitTimeout
from cq.execution.here import run_here
from cq.models import Task, Worker, workers
from cq.models.queries import database, rows_by_id
from cq.models.repeating import database_now
from cq.models.transitions import Want
from cq.workflow.claim import claim
from cq.workflow.recording import Recorder
from cq.workflow.rescue import end_overdue
from cq.workflow.retry import retry_now
from cq.workflow.revoke import revoke_now
from cq.workflow.schedule import fire_due

__all__ = ["Drained", "adrain", "drain", "inline", "wait_for"]

logger = logging.getLogger("cq.testing")

_MAX_TASKS = 10_000
_TELLERS = ("cq.workflow", "cq.progress", "cq.transport")


class Drained(list[Task]):
    """The tasks that a drain ran, in order, each as it ended; one per attempt."""

    def named(self, function: Any) -> list[Task]:
        """Those of one task function, given itself or by its name."""
        name = getattr(function, "name", function)
        return [task for task in self if task.func_name == name]


def drain(*, now: Moment | None = None, queues: list[str] | None = None) -> Drained:
    """
    Run every due task to its end, and what they lead to, until nothing is due.

    With `now`, a moment or a span from now (seconds), the clock goes on until then: delayed
    tasks, retries and repeating entries run in the order of their times, each at its own.
    Without it they stay where they are. In a `TestCase` what waits for a commit is done as well:
    `transaction.on_commit()`, and a `revoke()` or `retry()` of the test. Raises
    RuntimeError after 10,000 tasks.
    """
    refuse_on_loop("drain()", "'await adrain()'")
    _check_queues(queues)
    with joined_loop_thread(), _enlisted() as worker, _clock(now) as clock:
        run = _Run(worker, queues)
        commits = _Commits()
        while True:
            commits.make()
            if run.one() or end_overdue():
                continue
            if clock is None or not clock.advance():
                return run.tasks


async def adrain(*, now: Moment | None = None, queues: list[str] | None = None) -> Drained:
    """`drain` for an async test; async bodies run on the test's own loop."""
    return await in_db(partial(drain, now=now, queues=queues))


def _check_queues(queues: object) -> None:
    if queues is not None and not isinstance(queues, list | tuple):
        raise InvalidOption(
            f"queues is {queues!r}, which is no list of queue names. Write queues=['default'], or "
            "leave it out for every queue."
        )
    for queue in queues or ():
        check_queue(queue)


@contextmanager
def _enlisted() -> Iterator[UUID]:
    worker = Worker(names=list(registry.names()), hostname="cq.testing", state="drain")
    workers.enlist(worker)
    try:
        yield worker.id
    finally:
        Worker.objects.using(database()).filter(id=worker.id).delete()


class _Run:
    """Runs due tasks one by one."""

    def __init__(self, worker: UUID, queues: list[str] | None) -> None:
        self.tasks = Drained()
        self._worker = worker
        self._queues = queues
        self._recorder = Recorder(conf.current().max_lines)
        names = {name for function in registry.functions() for name in registry.aliases(function)}
        self._wants = [Want(tuple(sorted(names)), 1)]

    def one(self) -> bool:
        """Claim one due task and run it to its end; False if none is due."""
        for claimed in claim(self._worker, self._wants, self._queues):
            if len(self.tasks) == _MAX_TASKS:
                raise RuntimeError(
                    f"drain() ran {_MAX_TASKS} tasks and there is still more. A task that always "
                    "enqueues another never ends; run fewer, or give it an end."
                )
            function = _guarded(registry.lookup(claimed.func_name))
            run_here(claimed, function, self._recorder)
            self._recorder.flush()
            self.tasks.append(rows_by_id([claimed.id])[claimed.id])
            return True
        return False


class _Commits:
    """
    Does what waits for a commit, which the transaction around a TestCase never makes.

    That is what was left there since the drain began, and verbs such as `revoke()` from
    before. Callbacks of the test itself are Django's captureOnCommitCallbacks()' business.
    """

    def __init__(self) -> None:
        every: Any = connections.all(initialized_only=True)
        self._open = [one for one in every if one.in_atomic_block]
        self._known = {one: len(one.run_on_commit) for one in self._open}
        for one in self._open:
            for place, (sids, call, _) in enumerate(one.run_on_commit):
                if _is_verb(call):
                    # Kept in its place, on which captureOnCommitCallbacks() counts.
                    one.run_on_commit[place] = (sids, _nothing, True)
                    with suppress(IllegalTransition):  # it was captured, and done, before
                        call()

    def make(self) -> None:
        """Call what was left since, and what that leaves in turn."""
        for one in self._open:
            while waiting := one.run_on_commit[self._known[one] :]:
                del one.run_on_commit[self._known[one] :]
                for _, call, is_robust in waiting:
                    # Nobody outside may hear of rows that no commit will ever show.
                    if _is_verb(call) or not _module(call).startswith(_TELLERS):
                        _call(call, is_robust)


def _nothing() -> None:
    """Stand in for a callback that was called."""


def _is_verb(call: Any) -> bool:
    return getattr(call, "func", None) in (revoke_now, retry_now)


def _module(call: Any) -> str:
    return str(getattr(getattr(call, "func", call), "__module__", ""))


def _call(call: Any, is_robust: bool) -> None:
    try:
        call()
    except Exception:  # what a robust callback raises is logged, as after a commit
        if not is_robust:
            raise
        logger.exception("What was to follow a commit failed.")


def _guarded(function: Any) -> TaskFunctionLike:
    """
    The function with a body whose SQL errors spare the transaction around a TestCase.

    A worker runs a body that is not atomic in autocommit, where such an error harms nothing.
    """
    guarded: TaskFunctionLike = copy(function)
    if function.is_async:

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            scope = _savepoints()
            await in_db(scope.__enter__)
            try:
                return await function.body(*args, **kwargs)
            finally:
                await in_db(scope.__exit__, None, None, None)

        guarded.body = run_async
    elif not function.options.atomic:
        guarded.body = _savepoints()(function.body)
    return guarded


@contextmanager
def _savepoints() -> Iterator[None]:
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block:
                stack.enter_context(_savepoint(connection))
        yield


@contextmanager
def _savepoint(connection: Any) -> Iterator[None]:
    scope = transaction.atomic(using=connection.alias)
    scope._from_testcase = True  # so that a body may open a durable block, as in autocommit
    scope.__enter__()
    try:
        yield
    finally:
        # Whatever the body raised: what it wrote stays, unless the database lost it.
        if _is_broken(connection):
            transaction.set_rollback(True, using=connection.alias)
        scope.__exit__(None, None, None)


def _is_broken(connection: Any) -> bool:
    if connection.needs_rollback:
        return True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return True
    return False


class _Clock:
    """
    Goes on from tick to tick: what is not due yet comes nearer by what the clock advances.

    Rows that are still in the future at the end get back what they came nearer.
    """

    def __init__(self, now: Moment) -> None:
        self._start = database_now(database())
        if isinstance(now, datetime):
            self._span = now - self._start
        else:
            self._span = now if isinstance(now, timedelta) else timedelta(seconds=now)
        self._gone = timedelta(0)

    def advance(self) -> bool:
        """Fire what repeats, or go on to the next time at which something is due."""
        fired = fire_due(self._start + self._gone)
        if fired.tasks:
            return True
        steps = [step for step in (self._to_next_row(), self._to(fired.next_due)) if step]
        step = min(steps, default=None)
        if step is None or self._gone + step > self._span:
            return False
        self._move(step)
        self._gone += step
        return True

    def restore(self) -> None:
        """Put back what is still in the future to where it would be."""
        if self._gone:
            self._move(-self._gone)

    def _to(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else max(moment - self._start - self._gone, timedelta(0))

    def _to_next_row(self) -> timedelta | None:
        now = database_now(database())
        rows = Task.objects.using(database()).filter(status__in=CLAIMABLE, run_at__gt=now)
        nearest = rows.aggregate(at=Min("run_at"))["at"]
        return None if nearest is None else nearest - now

    def _move(self, step: timedelta) -> None:
        rows = Task.objects.using(database()).filter(status__in=NOT_STARTED)
        later = rows.filter(run_at__gt=database_now(database()))
        later.update(run_at=F("run_at") - step)
        rows.exclude(expires_at=None).update(expires_at=F("expires_at") - step)


@contextmanager
def _clock(now: Moment | None) -> Iterator[_Clock | None]:
    check_moment("now", now)
    if now is None:
        yield None
        return
    clock = _Clock(now)
    try:
        yield clock
    finally:
        clock.restore()


def wait_for(task: Task, status: Status | str | None = None, *, timeout: float = 10.0) -> Task:
    """
    Wait until a task has a status (any terminal one by default); return it, refreshed.

    For tests beside a real worker. Raises WaitTimeout with what the task is instead, and
    WaitInsideTask in a transaction, out of which no worker can see the task.
    """
    refuse_on_loop("wait_for()", "'await task'")
    check_seconds("timeout", timeout)
    wanted = TERMINAL if status is None else frozenset({_status(status)})
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        task.refresh_from_db()
        if task.status in wanted:
            return task
        if connections[database()].in_atomic_block:
            raise WaitInsideTask(
                f"wait_for() task {task.id} was called inside a transaction, such as that of "
                "TestCase, out of which no worker sees it. Use drain(), or TransactionTestCase.",
                task_id=task.id,
            )
        if time.monotonic() > deadline:
            names = " or ".join(sorted(one.label for one in wanted))
            raise WaitTimeout(
                f"Task {task.id} ({task.func_name}) is {Status(task.status).label} after "
                f"{timeout:g} s, not {names}. Its error is {task.error!r}.",
                task_id=task.id,
            )
        pause.wait(0.01)


def _status(status: Status | str) -> Status:
    try:
        return Status(status)
    except ValueError:
        known = ", ".join(f"{one.value!r} ({one.label})" for one in Status)
        raise InvalidOption(
            f"status is {status!r}, which is none of a task. Give one of {known}, such as "
            "Task.STATUS_SUCCESS."
        ) from None


@contextmanager
def inline() -> Iterator[None]:
    """Run every `delay()` in place while the block runs, as CQ["SERIAL"] does."""
    with override_settings(CQ={**conf.raw(), "SERIAL": True}):
        yield

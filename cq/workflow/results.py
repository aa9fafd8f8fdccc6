"""
Waiting for a task to end, from a thread or on an event loop.

The row decides. A task that ends in this process wakes the waiter at once; for one that
ends elsewhere the row is read at growing intervals, from one millisecond up to a tenth
of a second, so a short task is seen within its own length again.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

from django.db import connections

from cq.aio import in_db, inside_task, on_running_loop
from cq.definition.options import check_seconds
from cq.definition.status import TERMINAL, Status
from cq.errors import RunningLoop, WaitInsideTask, WaitTimeout
from cq.models.queries import database, rows_by_id
from cq.models.sql import dialect
from cq.models.task import Task
from cq.models.workers import serves
from cq.workflow.aftermath import endings

logger = logging.getLogger("cq.workflow")

LONG_TIMEOUT = 600
_SILENCE_SECONDS = 3.0
_LONGEST_PAUSE = 0.1


def wait(task: Task, timeout: float | None = None) -> Any:
    """
    Block until the task is terminal, refresh it in place and return its result.

    `timeout` is in seconds. Does not raise for a failed task: look at `status` and
    `error`. Raises WaitTimeout when the time is over (the task goes on), and refuses to
    block inside a running task or on an event loop.
    """
    _refuse_in_task()
    if on_running_loop():
        raise RunningLoop(
            f"wait() for task {task.id} was called on a running event loop, which it would "
            "block. Write 'await task' instead."
        )
    _check_timeout(timeout)
    with endings.listening(task.id) as ended:
        for pause in _pauses(task, timeout):
            if _refresh(task, pause):
                return task.result
            ended.wait(pause.seconds)
    raise _timed_out(task, timeout)


async def wait_async(task: Task, timeout: float | None = None) -> Any:
    """The same on an event loop: `await task`."""
    _refuse_in_task()
    _check_timeout(timeout)
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    with endings.listening(task.id, lambda: loop.call_soon_threadsafe(woken.set)):
        for pause in _pauses(task, timeout):
            if await in_db(_refresh, task, pause):
                return task.result
            try:
                async with asyncio.timeout(pause.seconds):
                    await woken.wait()
            except TimeoutError:
                continue
    raise _timed_out(task, timeout)


class _Pause:
    """One pause between two looks, and how long the wait has lasted."""

    __slots__ = ("seconds", "speaks", "waited")

    def __init__(self, seconds: float, waited: float, speaks: bool) -> None:
        self.seconds = seconds
        self.waited = waited
        self.speaks = speaks


def _pauses(task: Task, timeout: float | None) -> Iterator[_Pause]:
    start = time.monotonic()
    seconds, spoken = 0.001, False
    looks = 0
    while True:
        waited = time.monotonic() - start
        if timeout is not None and waited >= timeout and looks:
            return
        left = _LONGEST_PAUSE if timeout is None else max(timeout - waited, 0.0)
        speaks = not spoken and waited >= _SILENCE_SECONDS
        spoken = spoken or speaks
        yield _Pause(min(seconds, left), waited, speaks)
        looks += 1
        if looks > 4:
            seconds = min(seconds * 1.5, _LONGEST_PAUSE)


def _refresh(task: Task, pause: _Pause) -> bool:
    row = rows_by_id([task.id]).get(task.id)
    if row is None:
        raise Task.DoesNotExist(
            f"Task {task.id} is not in the database. Its transaction was rolled back, or it "
            "was pruned after its result_ttl."
        )
    if row.status in TERMINAL:
        for field in Task._meta.concrete_fields:
            setattr(task, field.attname, getattr(row, field.attname))
        return True
    if connections[database()].in_atomic_block:
        raise WaitInsideTask(
            f"Task {task.id} was waited for inside an open transaction, before which no worker "
            "can end it. Leave the atomic block first, or use cq.testing.drain() in a test.",
            task_id=task.id,
        )
    if pause.speaks and row.status in (Status.QUEUED, Status.RETRY):
        _say_if_unserved(row)
    return False


def _say_if_unserved(row: Task) -> None:
    if not serves(dialect(), row.queue, row.func_name):
        logger.warning(
            "Task %s (%s) waits in queue %r and no live worker takes it. Start one with: "
            "python manage.py cq_runworker -Q %s",
            row.id,
            row.func_name,
            row.queue,
            row.queue,
        )


def _refuse_in_task() -> None:
    if inside_task():
        raise WaitInsideTask(
            "A running task waited for another one, which would hold its slot for nothing and "
            "can stop every worker. Return the other task, or chain what is to follow it."
        )


def _check_timeout(timeout: float | None) -> None:
    check_seconds("timeout", timeout)
    if timeout is not None and timeout > LONG_TIMEOUT:
        warnings.warn(
            f"wait({timeout!r}) waits up to {timeout:g} seconds. In 2019 the argument was in "
            "milliseconds; pass seconds.",
            stacklevel=3,
        )


def _timed_out(task: Task, timeout: float | None) -> WaitTimeout:
    return WaitTimeout(
        f"Task {task.id} ({task.func_name}) was not terminal within {timeout:g} seconds. It goes "
        "on; wait again, or revoke() it.",
        task_id=task.id,
        timeout=timeout,
    )

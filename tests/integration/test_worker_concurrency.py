"""What one worker process runs side by side, and that every task passes the consumer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.db import connections

from cq.aio import in_db
from cq.definition.status import Status
from cq.models import LogLine, Task
from cq.testing import wait_for
from cq.transport.groups import WORKERS_GROUP, audience_messages, root_group
from cq.transport.own_layer import make_layer
from tests.conftest import Layers
from tests.sampleapp import trouble
from tests.sampleapp.tasks import (
    doze,
    log_then_trim,
    noop,
    query_slowly,
    spin,
    where_in_a_child,
)
from tests.settings import DATABASE_KIND
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

TROUBLE = {"TASK_MODULES": [trouble.MODULE]}


def ended(tasks: list[Task]) -> bool:
    ids = [task.id for task in tasks]
    return Task.objects.filter(id__in=ids, status=Status.SUCCESS).count() == len(ids)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_one_process_runs_many_bodies_side_by_side_in_few_threads(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("-c", "500", "--no-scheduler")
    most = 0

    def all_ended() -> bool:
        nonlocal most
        most = max(most, threads_of(worker.pid))
        return ended(tasks)

    noop.delay().wait(10)
    began = time.monotonic()
    tasks = doze.delay_many([((1.0,), {})] * 500)
    wait_until(all_ended, timeout=20)
    assert time.monotonic() - began < 3
    if DATABASE_KIND == "postgres":  # SQLite cannot sleep in a statement
        tasks = query_slowly.delay_many([((0.0,), {})] * 20)  # opens the sessions
        wait_until(lambda: ended(tasks))
        began = time.monotonic()
        tasks = query_slowly.delay_many([((0.2,), {})] * 20)
        wait_until(all_ended)
        assert time.monotonic() - began < 1.5
    assert most < 40


def test_a_body_that_never_ends_is_killed_and_its_process_replaced(
    worker_process: WorkerFactory,
) -> None:
    worker = worker_process("--no-scheduler", cq={"PROCESSES": 2} | TROUBLE)
    first = where_in_a_child.delay()
    first.wait(20)
    began = time.monotonic()
    endless = spin.delay()
    neighbour = where_in_a_child.delay()
    assert neighbour.wait(20) != worker.pid
    wait_for(endless, Status.FAILURE, timeout=10)
    assert time.monotonic() - began < 4
    assert "longer than its time limit of 2 s" in endless.error
    again = [where_in_a_child.delay() for _ in range(4)]
    for task in again:
        task.wait(20)
    assert trouble.print_much.delay().wait(20) == "printed"
    assert "Unknown child process" not in worker.output()
    assert worker.stop() == 0
    assert "Traceback" not in worker.output()


def test_the_record_keeps_the_last_lines_and_one_sequence_per_tree(
    worker_process: WorkerFactory,
) -> None:
    worker_process("--no-scheduler", cq=TROUBLE)
    trimmed = log_then_trim.delay(100, 10)
    tree = trouble.loggers.delay(5, 200)
    child = trouble.log_in_a_child.delay(20)
    trimmed.wait(20)
    messages = list(
        LogLine.objects.filter(root=trimmed.id).order_by("seq").values_list("seq", "message")
    )
    expected = [*(f"line {n}" for n in range(92, 101)), "done"]
    assert messages == list(enumerate(expected, start=1))
    wait_for(tree, Status.SUCCESS, timeout=30)
    lines = list(LogLine.objects.filter(root=tree.id).order_by("seq").values_list("seq", "task"))
    assert [seq for seq, _ in lines] == list(range(1, 1001))
    assert len({task for _, task in lines}) == 5
    wait_for(child, Status.SUCCESS, timeout=30)
    assert list(
        LogLine.objects.filter(root=child.id).order_by("seq").values_list("message", flat=True)
    ) == [f"line {n}" for n in range(1, 21)]


async def test_watchers_hear_a_child_process_while_it_runs(
    worker_process: WorkerFactory, use_layers: Layers, await_until: Callable[..., Any]
) -> None:
    use_layers("redis")
    await in_db(partial(worker_process, "--no-scheduler", cq=TROUBLE))
    layer = make_layer("default")
    channel = await layer.new_channel()
    task = await trouble.log_in_a_child.adelay(100, 0.1)
    await layer.group_add(root_group(task.id), channel)

    async def hears_lines() -> bool:
        # Again and again, as watchers do: the worker may not have been listening yet.
        for message in audience_messages([task.id.hex]):
            await layer.group_send(WORKERS_GROUP, message)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                return bool((await layer.receive(channel))["kind"] == "log")
        return False

    await await_until(hears_lines)
    await task.arefresh_from_db()
    assert task.status == Status.RUNNING
    await task.arevoke()
    await in_db(connections.close_all)

"""With a poll of a minute, a bell alone starts a new task within some milliseconds."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from cq.aio import in_db
from cq.definition.status import Status
from cq.models import Task
from cq.testing import wait_for
from cq.worker.consumer import TaskConsumer
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner
from tests.conftest import Layers
from tests.sampleapp.tasks import fan_out_sync, noop, noop_atomic, noop_sync
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

PROBES = 25
LIMIT = 0.02


def median_delay(tasks: list[Task]) -> float:
    """The median time from the commit of a task to the start of its body, in seconds."""
    rows = Task.objects.filter(id__in=[task.id for task in tasks])
    return statistics.median(
        (row.started - row.submitted).total_seconds() for row in rows if row.started
    )


@pytest.mark.parametrize("kind", ["redis", "stock"])
def test_an_idle_worker_is_rung(
    worker_process: WorkerFactory, use_layers: Layers, kind: str
) -> None:
    use_layers(kind)
    worker_process("--no-scheduler", cq={"POLL": 60.0})
    noop.delay().wait(10)
    tasks = []
    for _ in range(PROBES):
        tasks.append(noop.delay())
        wait_for(tasks[-1], Status.SUCCESS, timeout=5)
    assert median_delay(tasks) <= LIMIT


async def test_an_embedded_worker_is_rung_and_every_task_passes_the_consumer(
    database: Any, use_layers: Layers, settings: Any
) -> None:
    use_layers("memory")
    settings.CQ = {"POLL": 60.0}
    before = TaskConsumer.dispatched
    runner = Runner(WorkerOptions.from_settings(scheduler=False, grace=2.0))
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run())
        await runner.ready.wait()
        await (await noop.adelay())
        tasks = []
        for _ in range(PROBES):
            tasks.append(await noop.adelay())
            await tasks[-1]
        await (await fan_out_sync.adelay(5))
        for body in (noop_sync, noop_atomic):
            await (await body.adelay())
        runner.stop()
    assert await in_db(median_delay, tasks) <= LIMIT
    attempts = await in_db(lambda: sum(Task.objects.values_list("attempts", flat=True)))
    await in_db(connections.close_all)
    assert TaskConsumer.dispatched - before == attempts == 1 + PROBES + 6 + 2

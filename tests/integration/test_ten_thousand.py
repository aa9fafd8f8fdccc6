"""
The profile of the Procfile under load: a web process, three workers, ten thousand tasks.

Every body leaves one effect with its task, attempt and process, so that counting the effects
proves what the statuses claim: each body ran once, and none was lost.
"""

from __future__ import annotations

import urllib.request
from collections import Counter

import pytest
from django.db.models import Count

from cq import Status, Task
from tests.sampleapp import tasks
from tests.sampleapp.models import Effect
from tests.service_guard import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(400)]

ASYNC, SYNC, ATOMIC, PARENTS, CHILDREN = 4000, 3000, 2000, 100, 9
TOTAL = ASYNC + SYNC + ATOMIC + PARENTS * (1 + CHILDREN)


def enqueue_all() -> None:
    """Half of them one by one, as requests do, and half in bulk, as an import does."""
    for function, count in (
        (tasks.write_effect_async, ASYNC),
        (tasks.write_effect_unsafely, SYNC),
        (tasks.write_effect, ATOMIC),
    ):
        for _ in range(count // 2):
            function.delay()
        function.delay_many([((), {})] * (count // 2))
    for _ in range(PARENTS):
        tasks.fan_out_effects.delay(CHILDREN)


def answers(url: str) -> bool:
    """Whether the web process still serves pages."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.status == 200


def test_ten_thousand_tasks_run_once_each_on_three_workers(worker_process):
    assert TOTAL == 10_000
    address = f"127.0.0.1:{free_port()}"
    worker_process.manage("runserver", "--noreload", address)
    workers = [worker_process() for _ in range(3)]

    enqueue_all()
    wait_until(lambda: not Task.objects.active().exists(), timeout=300)

    assert Counter(Task.objects.values_list("status", flat=True)) == {Status.SUCCESS: TOTAL}
    assert set(Task.objects.values_list("attempts", flat=True)) == {1}
    assert Effect.objects.count() == TOTAL
    assert Effect.objects.values("task").distinct().count() == TOTAL
    pids = Counter(dict(Effect.objects.values_list("pid").annotate(Count("id"))))
    assert {worker.pid for worker in workers} <= set(pids), pids
    assert answers(f"http://{address}/admin/login/")

"""Repeating tasks on real workers: three schedulers, one of them killed, one run a tick."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from cq.definition.status import Status
from cq.models import RepeatingTask, Task
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import write_effect
from tests.workers import WorkerFactory

pytestmark = pytest.mark.usefixtures("database")

WaitUntil = Callable[..., Any]


def minute(ago: int) -> datetime:
    return timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=ago)


def ended(count: int) -> bool:
    return Task.objects.filter(status=Status.SUCCESS).count() == count


@pytest.mark.long
@pytest.mark.timeout(120)
def test_three_workers_run_each_tick_once_though_one_is_killed(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    workers = [worker_process() for _ in range(3)]
    entry = RepeatingTask.objects.create(func_name=write_effect.name, crontab="0 0 1 1 *")
    for number, ago in enumerate((3, 2, 1), start=1):
        # Due at once, for a tick of its own; the workers look at least every ten seconds.
        RepeatingTask.objects.filter(pk=entry.pk).update(next_run=minute(ago))
        wait_until(lambda number=number: ended(number), timeout=30)
        if number == 1:
            workers[0].kill()
    ticks = list(Task.objects.values_list("tick", flat=True))
    assert len(ticks) == len(set(ticks)) == 3
    assert Effect.objects.count() == 3
    entry.refresh_from_db()
    assert entry.next_run is not None
    assert entry.next_run > timezone.now()


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_three_workers_run_three_real_minutes(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    for _ in range(3):
        worker_process()
    RepeatingTask.objects.create(func_name=write_effect.name)
    wait_until(lambda: ended(3), timeout=240)
    tasks = list(Task.objects.order_by("tick").values_list("tick", "submitted"))
    assert [tick - tasks[0][0] for tick, _ in tasks] == [timedelta(minutes=n) for n in range(3)]
    for tick, submitted in tasks:
        assert timedelta() <= submitted - tick < timedelta(seconds=2)
    assert Effect.objects.count() == 3

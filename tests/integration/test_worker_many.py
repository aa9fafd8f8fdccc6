"""One producer and three workers on PostgreSQL and Redis: each body once, none lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cq.definition.status import Status
from cq.models import Task
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import (
    fan_out_effects,
    write_effect,
    write_effect_async,
    write_effect_unsafely,
)
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

CHILDREN = 4
TASKS_PER_ROUND = 3 + 1 + CHILDREN


def enqueue(rounds: int) -> None:
    """As requests of a web process would: one by one, all kinds mixed."""
    for _ in range(rounds):
        write_effect_async.delay()
        write_effect_unsafely.delay()
        write_effect.delay()
        fan_out_effects.delay(CHILDREN)


def all_ended(count: int) -> bool:
    return Task.objects.filter(status=Status.SUCCESS).count() >= count


def run_on_three_workers(
    worker_process: WorkerFactory, wait_until: WaitUntil, rounds: int, patience: float
) -> None:
    workers = [worker_process("--no-scheduler") for _ in range(3)]
    enqueue(rounds)
    count = rounds * TASKS_PER_ROUND
    wait_until(lambda: all_ended(count), timeout=patience)
    assert Counter(Task.objects.values_list("status", flat=True)) == {Status.SUCCESS: count}
    effects = list(Effect.objects.values_list("task", "attempt", "pid"))
    assert len(effects) == len({task for task, _, _ in effects}) == count
    assert {attempt for _, attempt, _ in effects} == {1}
    assert {pid for _, _, pid in effects} == {worker.pid for worker in workers}
    assert not Task.objects.exclude(children_open=0).exists()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_each_of_many_tasks_runs_once_on_three_workers(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    run_on_three_workers(worker_process, wait_until, rounds=250, patience=60)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_each_of_ten_thousand_tasks_runs_once_on_three_workers(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    run_on_three_workers(worker_process, wait_until, rounds=1250, patience=400)

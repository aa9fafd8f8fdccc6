"""
Poison: tasks that kill their process. Each is Lost after its budget, and takes nobody along.

A first death takes the worker, and charges everything it ran with one crash; from then on
each of them runs in a child process of its own, so that only the poison goes on dying.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cq.definition.status import TERMINAL, Status
from cq.models import Task
from cq.testing import wait_for
from tests.sampleapp import kinds, trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import where
from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]

SETTINGS = {
    "TASK_MODULES": [kinds.MODULE, trouble.MODULE],
    "LEASE": 2.0,
    "HEARTBEAT": 0.3,
    "POLL": 0.5,
    "PROCESSES": 6,
}
POISONS = (trouble.kill_own_process, trouble.exit_hard, trouble.fault_segment, trouble.abort_hard)
INNOCENTS = 6


class Keeper:
    """Keeps one worker running, as a process manager would."""

    def __init__(self, start: WorkerFactory) -> None:
        self._start = start
        self.deaths = 0
        self.worker: WorkerProcess = start("--no-scheduler", cq=SETTINGS)

    def look(self) -> bool:
        """Start another one if it has died; true when nothing is left to do."""
        if not self.worker.is_running:
            self.deaths += 1
            self.worker = self._start("--no-scheduler", cq=SETTINGS, ready=False)
        return not Task.objects.exclude(status__in=TERMINAL).exists()


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_poison_is_lost_and_takes_nobody_along(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    keeper = Keeper(worker_process)
    innocents = [body.delay(1.0) for body in (kinds.dozing, kinds.dozing_atomic) * INNOCENTS]
    wait_until(lambda: Task.objects.filter(status=Status.RUNNING).count() >= INNOCENTS)
    poison = [body.delay() for body in POISONS]
    wait_until(keeper.look, timeout=120)
    for task in poison:
        task.refresh_from_db()
        assert (task.status, task.crashes) == (Status.LOST, 3), task.func_name
        # It may have lost a worker to another poison while it ran in a child.
        assert task.attempts == 3 + task.releases
    for task in innocents:
        task.refresh_from_db()
        assert task.status == Status.SUCCESS, task.error
    assert keeper.deaths >= 1
    wait_until(lambda: keeper.worker.rows(), timeout=30)
    assert where.delay().wait(10) == keeper.worker.pid
    assert keeper.worker.stop() == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(240)
def test_one_poison_after_the_other_takes_no_long_task_along(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    keeper = Keeper(worker_process)
    innocents = [kinds.dozing.delay(12.0), kinds.dozing_atomic.delay(12.0)]
    ids = [task.id for task in innocents]

    def are_running() -> bool:
        keeper.look()
        held = Task.objects.filter(id__in=ids, status=Status.RUNNING, worker__alive=True)
        return held.count() == len(ids)

    # Each of them is fresh, so that each takes a worker with everything that it runs.
    for number in range(1, 5):
        wait_until(are_running, timeout=30)
        trouble.exit_hard.delay()
        wait_until(lambda number=number: keeper.look() or keeper.deaths == number, timeout=30)
    wait_until(keeper.look, timeout=120)
    assert keeper.deaths == 4
    for task in innocents:
        task.refresh_from_db()
        assert task.status == Status.SUCCESS, (task.crashes, task.error)
    assert keeper.worker.stop() == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(90)
def test_a_body_that_takes_all_memory_fails_alone(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", "--threads", "4", cq=SETTINGS)
    neighbour = kinds.dozing.delay(2.0)
    wait_until(lambda: Task.objects.filter(status=Status.RUNNING).count() == 1)
    statm = Path(f"/proc/{worker.pid}/statm").read_text()
    size = int(statm.split()[0]) * resource.getpagesize()
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + 256 * 2**20, resource.RLIM_INFINITY))
    task = trouble.take_all_memory.delay()
    wait_for(task, Status.FAILURE, timeout=30)
    assert "MemoryError" in task.errors[0]["type"]
    assert task.crashes == 0
    wait_for(neighbour, Status.SUCCESS, timeout=20)
    assert Effect.objects.filter(kind="dozing").count() == 1
    resource.prlimit(
        worker.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    assert where.delay().wait(10) == worker.pid
    assert worker.stop() == 0

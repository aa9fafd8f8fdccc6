"""Bodies that misbehave: each ends its own attempt, and never its worker or its neighbours."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cq.definition.status import Status
from cq.models import Task, Worker
from cq.testing import wait_for
from tests.sampleapp import trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import (
    begin_and_end_async,
    die_in_a_child,
    doze,
    noop,
    noop_atomic,
    outstay_async,
    where,
    where_in_a_child,
)
from tests.settings import DATABASE_KIND
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

TROUBLE = {"TASK_MODULES": [trouble.MODULE]}


def running(task: Task) -> bool:
    return Task.objects.filter(id=task.id, status=Status.RUNNING).exists()


def test_whatever_a_body_raises_ends_its_attempt_only(worker_process: WorkerFactory) -> None:
    worker = worker_process("--no-scheduler", cq=TROUBLE | {"PROCESSES": 1})
    forms = [trouble.raise_odd, trouble.raise_odd_async, trouble.raise_odd_atomic]
    failing = {(form.name, name): form.delay(name) for form in forms for name in trouble.RAISED}
    child = "raise_odd_in_a_child"
    failing |= {
        (child, name): trouble.raise_odd_in_a_child.delay(name)
        for name in ("SystemExit", "KeyboardInterrupt", "BaseExceptionGroup")
    }
    failing["cancel", ""] = trouble.cancel_itself.delay()
    failing["recursion", ""] = trouble.recurse.delay()
    for (form, name), task in failing.items():
        wait_for(task, timeout=30)
        assert (task.status, task.crashes) == (Status.FAILURE, 0), (form, name)
        assert len(task.errors) == 1
        assert name in task.errors[0]["type"] or form in ("cancel", "recursion"), (form, name)
    assert not Effect.objects.exists()
    assert where.delay().wait(10) == worker.pid
    assert worker.stop() == 0


@pytest.mark.long
@pytest.mark.skipif(DATABASE_KIND != "postgres", reason="SQLite cannot sleep in a statement")
def test_time_limits_of_coroutines_and_threads(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", "--threads", "3", cq=TROUBLE)
    began = time.monotonic()
    tasks = [
        outstay_async.delay(),
        trouble.query_too_long.delay(),
        trouble.sleep_in_a_thread.delay(5.8),
    ]
    for task in tasks:
        wait_for(task, Status.FAILURE, timeout=5)
        assert "longer than its time limit of 0." in task.error
    assert time.monotonic() - began < 3
    assert not Effect.objects.exists()
    # The statement was interrupted; the thread that sleeps is shown as leaked, until it ends.
    wait_until(lambda: "its slot is leaked" in worker.output(), timeout=10)
    wait_until(lambda: "has ended after all" in worker.output(), timeout=10)
    assert worker.output().count("its slot is leaked") == 1
    assert [noop_atomic.delay().wait(10) for _ in range(6)] == [None] * 6
    assert worker.stop() == 0


@pytest.mark.exhaustive
def test_a_worker_with_too_many_leaked_slots_drains(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", "--threads", "3", cq=TROUBLE | {"MAX_LEAKS": 2})
    stuck = [trouble.sleep_in_a_thread.delay(60.0), trouble.swallow_its_limit.delay(60.0)]
    for task in stuck:
        wait_for(task, Status.FAILURE, timeout=10)
    assert worker.process.wait(20) == 0, worker.output()
    assert "2 slots are leaked" in worker.output()
    assert not Worker.objects.filter(alive=True).exists()


def test_running_tasks_are_revoked(worker_process: WorkerFactory, wait_until: WaitUntil) -> None:
    worker_process("--no-scheduler", "--threads", "2", cq=TROUBLE | {"HEARTBEAT": 0.5})
    coroutine = begin_and_end_async.delay(30.0)
    thread = trouble.write_every_moment.delay()
    child = trouble.doze_in_a_child.delay(30.0)
    wait_until(lambda: Effect.objects.filter(kind="begin").count() == 2, timeout=20)
    wait_until(lambda: Effect.objects.filter(kind="moment").exists())
    for task in (coroutine, thread, child):
        assert running(task)
        task.revoke()
        assert task.status == Status.REVOKED
    # Both slots of the threads are free again within a heartbeat: the writer was refused.
    wait_until(lambda: _is_still(lambda: Effect.objects.count()), timeout=5)
    assert not Effect.objects.filter(kind="end").exists()
    assert [noop_atomic.delay().wait(10) for _ in range(4)] == [None] * 4
    assert where_in_a_child.delay().wait(20)
    for task in (coroutine, thread, child):
        task.refresh_from_db()
        assert (task.status, task.result) == (Status.REVOKED, None)


def _is_still(count: Callable[[], int]) -> bool:
    """Whether nothing is added while three short tasks run through the worker."""
    before = count()
    for _ in range(3):
        doze.delay(0.1).wait(10)
    return count() == before


@pytest.mark.exhaustive
def test_a_body_that_swallows_its_revoke_is_left_alone(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", "--grace", "1", cq=TROUBLE)
    task = trouble.swallow.delay(60.0)
    wait_until(lambda: running(task))
    task.revoke()
    wait_until(lambda: "its slot is leaked" in worker.output(), timeout=15)
    noop.delay().wait(10)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 6
    task.refresh_from_db()
    assert task.status == Status.REVOKED


def test_a_blocked_loop_keeps_its_lease_and_is_named(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    settings = TROUBLE | {"LEASE": 1.0, "HEARTBEAT": 0.2, "LOOP_STALL": 0.3}
    blocked = worker_process("--no-scheduler", cq=settings)
    task = trouble.block_the_loop.delay(3.0)
    wait_until(lambda: running(task))
    observer = worker_process("--no-scheduler", cq=settings)
    wait_for(task, Status.SUCCESS, timeout=10)
    assert (task.attempts, task.crashes) == (1, 0)
    wait_until(lambda: "turns again" in blocked.output())
    assert "time.sleep(seconds)" in blocked.output()
    assert "block_the_loop" in blocked.output()
    assert "is dead" not in observer.output()


@pytest.mark.parametrize(
    "killer",
    [trouble.kill_own_process, pytest.param(trouble.exit_hard, marks=pytest.mark.exhaustive)],
)
def test_a_task_that_kills_its_worker_is_lost_and_takes_nobody_along(
    worker_process: WorkerFactory, wait_until: WaitUntil, killer: Any
) -> None:
    settings = TROUBLE | {"HEARTBEAT": 0.5, "MAX_CRASHES": 2}
    victim = worker_process("--no-scheduler", cq=settings)
    innocent = doze.delay(1.5)
    wait_until(lambda: running(innocent))
    task = killer.delay()
    victim.process.wait(10)
    rescuer = worker_process("--no-scheduler", cq=settings)
    wait_for(task, Status.LOST, timeout=30)
    assert (task.crashes, task.attempts) == (2, 2)
    wait_for(innocent, Status.SUCCESS, timeout=20)
    assert innocent.crashes == 1
    assert rescuer.is_running
    pids = set(Effect.objects.filter(kind="killer").values_list("pid", flat=True))
    assert rescuer.pid not in pids
    assert where.delay().wait(10) == rescuer.pid
    assert rescuer.stop() == 0
    assert "Unknown child process" not in rescuer.output()


def test_a_child_that_dies_is_charged_to_its_task_alone(worker_process: WorkerFactory) -> None:
    worker = worker_process("--no-scheduler", cq={"MAX_CRASHES": 1})
    task = die_in_a_child.delay()
    wait_for(task, Status.LOST, timeout=30)
    assert (task.crashes, task.attempts) == (1, 1)
    assert "exit code 9" in task.error
    assert where_in_a_child.delay().wait(20) != worker.pid
    assert worker.stop() == 0
    assert "Unknown child process" not in worker.output()
    assert "Traceback" not in worker.output()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_child_ends_with_its_parent(worker_process: WorkerFactory, wait_until: WaitUntil) -> None:
    worker = worker_process("--no-scheduler", cq=TROUBLE)
    trouble.doze_in_a_child.delay(60.0)
    child = wait_until(lambda: Effect.objects.values_list("pid", flat=True).first(), timeout=20)
    assert child != worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_there(child))

"""Workers killed with -9 in the middle of their work, and workers frozen past their lease."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cq.definition.status import TERMINAL, Status
from cq.models import LogLine, Progress, Task, Worker
from cq.testing import wait_for
from tests.sampleapp import kinds, trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import begin_and_end_async, where, write_effect_then_sleep
from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]

TROUBLE = {"TASK_MODULES": [trouble.MODULE]}
RUNNING = 8
WITHIN = 15.0


def held_by(worker: WorkerProcess) -> list[Any]:
    """The tasks that a worker process runs, by the rows."""
    rows = Worker.objects.filter(pid=worker.pid, alive=True)
    found = Task.objects.filter(status=Status.RUNNING, worker__in=rows)
    return list(found.values_list("id", flat=True))


def queued(ids: list[Any]) -> bool:
    return Task.objects.filter(id__in=ids, status=Status.QUEUED).exists()


def kill_busy_workers(worker_process: WorkerFactory, wait_until: WaitUntil, rounds: int) -> None:
    options = ("--no-scheduler", "--threads", "8")
    survivor = worker_process(*options)
    for _ in range(rounds):
        victim = worker_process(*options)
        tasks = [body.delay(0.8) for body in (write_effect_then_sleep, begin_and_end_async) * 16]
        ids = [task.id for task in tasks]
        wait_until(lambda victim=victim: len(held_by(victim)) >= RUNNING)
        row = Worker.objects.get(pid=victim.pid, alive=True)
        victim.kill()
        began, held = time.monotonic(), held_by(victim)
        assert len(held) >= RUNNING
        with_the_dead = Task.objects.filter(id__in=held, status=Status.RUNNING, worker=row.id)
        wait_until(lambda dead=with_the_dead: not dead.exists(), timeout=WITHIN)
        wait_until(lambda held=held: not queued(held), timeout=WITHIN)
        assert time.monotonic() - began < WITHIN
        # Two children run one suspect after the other.
        wait_until(
            lambda ids=ids: Task.objects.filter(id__in=ids, status__in=TERMINAL).count() == 32,
            timeout=60,
        )
        rows = Task.objects.filter(id__in=ids)
        assert set(rows.values_list("status", flat=True)) == {Status.SUCCESS}
        assert set(rows.filter(id__in=held).values_list("crashes", "attempts")) == {(1, 2)}
        assert set(rows.exclude(id__in=held).values_list("crashes", "attempts")) == {(0, 1)}
        written = Effect.objects.filter(task__in=ids, kind="slow").values_list("task", flat=True)
        assert sorted(written) == sorted(task.id for task in tasks[::2])
    assert survivor.is_running


@pytest.mark.long
@pytest.mark.timeout(90)
def test_tasks_of_a_killed_worker_end_elsewhere(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    kill_busy_workers(worker_process, wait_until, rounds=1)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_tasks_of_twenty_killed_workers_end_elsewhere(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    kill_busy_workers(worker_process, wait_until, rounds=20)


@pytest.mark.exhaustive
def test_a_restarted_worker_frees_what_its_predecessor_held(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    first = worker_process("--no-scheduler")
    tasks = [begin_and_end_async.delay(0.5) for _ in range(RUNNING)]
    wait_until(lambda: Effect.objects.filter(kind="begin").count() == RUNNING)
    first.kill()
    worker_process("--no-scheduler")
    for task in tasks:
        wait_for(task, Status.SUCCESS, timeout=WITHIN)


def rows_of_cq() -> list[Any]:
    """What a worker writes about tasks, to be compared."""
    progress = Progress.objects.order_by("pk").values("task", "root", "done", "total", "message")
    return [
        list(Task.objects.order_by("pk").values()),
        list(LogLine.objects.order_by("pk").values()),
        list(progress),
    ]


@pytest.mark.long
def test_a_zombie_changes_nothing_and_goes_on_under_a_new_row(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    settings = TROUBLE | {"LEASE": 1.0, "HEARTBEAT": 0.2}
    zombie = worker_process("--no-scheduler", cq=settings)
    tasks = [trouble.report_then_sleep.delay(1.0) for _ in range(2)]
    tasks += [trouble.report_then_doze.delay(1.0) for _ in range(2)]
    # The lines and the progress of before are recorded, the bodies are in the middle.
    wait_until(lambda: Progress.objects.count() == LogLine.objects.count() == 4)
    zombie.send(signal.SIGSTOP)
    before = Worker.objects.get()
    assert len(held_by(zombie)) == 4
    observer = worker_process("--no-scheduler", cq=settings)
    for task in tasks:
        wait_for(task, Status.SUCCESS, timeout=30)
        assert (task.attempts, task.crashes) == (2, 1)
    assert "is dead" in observer.output()
    wait_until(lambda: set(Progress.objects.values_list("done", flat=True)) == {2.0})
    known = rows_of_cq()
    zombie.send(signal.SIGCONT)
    wait_until(lambda: Worker.objects.filter(pid=zombie.pid, alive=True).exists())
    assert Worker.objects.get(pid=zombie.pid, alive=True).id != before.id
    assert observer.stop() == 0
    assert rows_of_cq() == known
    assert where.delay().wait(10) == zombie.pid
    assert zombie.stop() == 0
    mine = Task.objects.filter(func_name__in=[where.name])
    assert [task.status for task in mine] == [Status.SUCCESS]
    mine.delete()
    assert rows_of_cq() == known
    effects = Effect.objects.filter(kind="reported").values_list("task", flat=True)
    assert sorted(effects) == sorted(task.id for task in tasks[:2])


SHORT = {"TASK_MODULES": [kinds.MODULE, trouble.MODULE], "LEASE": 1.0, "HEARTBEAT": 0.2}


@pytest.mark.exhaustive
def test_a_worker_whose_loop_stays_blocked_lets_go_of_its_tasks(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path
) -> None:
    settings, end = SHORT | {"LOOP_STALL": 0.3, "LOOP_STALL_MAX": 1.0}, tmp_path / "end"
    stuck = worker_process("--no-scheduler", cq=settings)
    neighbours = [kinds.lingering.delay(str(end)) for _ in range(3)]
    wait_until(lambda: len(held_by(stuck)) == 3)
    blocker = trouble.block_the_loop.delay(8.0)
    wait_until(lambda: len(held_by(stuck)) == 4)
    observer = worker_process("--no-scheduler", cq=settings)
    wait_until(lambda: "is dead" in observer.output(), timeout=20)
    assert "declared dead" not in stuck.output()  # its loop cannot even hear of it
    end.touch()
    for task in neighbours:
        wait_for(task, Status.SUCCESS, timeout=20)
        assert (task.attempts, task.crashes) == (2, 1)
    wait_until(lambda: "This worker goes on as" in stuck.output(), timeout=20)
    assert "block_the_loop" in stuck.output()
    wait_for(blocker, Status.SUCCESS, timeout=30)
    assert (blocker.attempts, blocker.crashes) == (2, 1)
    assert observer.stop() == stuck.stop() == 0


@pytest.mark.exhaustive
def test_a_draining_worker_beats_until_its_last_task_has_ended(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    leaving = worker_process("--no-scheduler", "--grace", "30", cq=SHORT)
    tasks = [body.delay(str(end)) for body in (kinds.lingering, kinds.lingering_atomic)]
    wait_until(lambda: len(held_by(leaving)) == 2)
    observer = worker_process("--no-scheduler", cq=SHORT)
    leaving.send(signal.SIGTERM)
    wait_until(lambda: Worker.objects.filter(pid=leaving.pid, state="draining").exists())
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 3)
    assert len(held_by(leaving)) == 2
    end.touch()
    assert leaving.process.wait(10) == 0
    for task in tasks:
        wait_for(task, Status.SUCCESS, timeout=5)
        assert (task.attempts, task.crashes, task.releases) == (1, 0, 0)
    assert "is dead" not in observer.output()

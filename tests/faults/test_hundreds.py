"""
A hundred times the same fault: kill -9, SIGTERM, and a freeze past the lease.

Workers come in cohorts, so that a hundred of them take minutes. What they hold lingers until
the test lets it end, and whoever shall take it over stands still while they claim: so each of
them is hit in the middle of its work, whatever the speed of the machine.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Q

from cq.definition.status import TERMINAL, Status
from cq.models import LogLine, Progress, Task, Worker
from tests.faults.ledger import entries, ledger
from tests.faults.verdict import judge
from tests.sampleapp import kinds
from tests.sampleapp.models import Effect
from tests.settings import DATABASE_KIND
from tests.waiting import wait_until
from tests.workers import WorkerFactory, WorkerProcess

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(900),
    pytest.mark.skipif(DATABASE_KIND != "postgres", reason="the short leases are for PostgreSQL"),
]
MODULES = {"TASK_MODULES": [kinds.MODULE]}
LEASE, HEARTBEAT, POLL = 2.0, 0.5, 1.0
SETTINGS = MODULES | {"LEASE": LEASE, "HEARTBEAT": HEARTBEAT, "POLL": POLL, "PROCESSES": 2}
COHORT, EACH = 10, 3
GRACE = 1
SMALL = ("--no-scheduler", "-c", "2", "--threads", "1")
LARGE = ("--no-scheduler", "-c", "50", "--threads", "20")


@pytest.fixture(autouse=True)
def _ledger(database: Any) -> Iterator[None]:
    with ledger():
        yield


def is_over() -> bool:
    return not Task.objects.exclude(status__in=TERMINAL).exists()


def state_of(process: WorkerProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def freeze(process: WorkerProcess) -> None:
    """Stop a process, and see that it stands still."""
    process.send(signal.SIGSTOP)
    wait_until(lambda: state_of(process) == "T")


def live_row(process: WorkerProcess) -> Worker:
    """The row under which a process works now; waits until it has one."""
    return wait_until(
        lambda: Worker.objects.filter(pid=process.pid, alive=True).first(), timeout=30
    )


def start_cohort(
    start: WorkerFactory, count: int, *options: str, env: Mapping[str, str], cq: Mapping[str, Any]
) -> list[WorkerProcess]:
    """Start so many workers at once, and wait until all of them are ready."""
    cohort = [start(*SMALL, *options, env=env, cq=cq, ready=False) for _ in range(count)]
    for worker in cohort:
        live_row(worker)
    return cohort


@contextmanager
def standing_still(observer: WorkerProcess) -> Iterator[None]:
    """Keep a worker from claiming for a moment; afterwards it has beaten again."""
    freeze(observer)
    yield
    row = Worker.objects.filter(pid=observer.pid, alive=True)
    before = row.values_list("id", "beat").first()
    observer.send(signal.SIGCONT)
    # Under a row of its own again, if it stood still for too long.
    wait_until(lambda: row.values_list("id", "beat").first() not in (None, before))


def held_by(cohort: list[WorkerProcess], *, each: int) -> dict[UUID, set[UUID]]:
    """The tasks that each of some workers runs, by its row, when all of them run so many."""
    rows = [live_row(worker).id for worker in cohort]

    def look() -> dict[UUID, set[UUID]]:
        held: dict[UUID, set[UUID]] = {row: set() for row in rows}
        found = Task.objects.filter(status=Status.RUNNING, worker__in=rows)
        for task, row in found.values_list("id", "worker"):
            held[row].add(task)
        return held if all(len(tasks) == each for tasks in held.values()) else {}

    return wait_until(look, timeout=30)


def recovery_times(held: Mapping[UUID, set[UUID]], timeout: float) -> list[float]:
    """How many seconds it takes until what a row held runs elsewhere or has ended, for each row."""
    began, times = time.monotonic(), dict.fromkeys(held, 0.0)

    def all_are_free() -> bool:
        for row, tasks in held.items():
            elsewhere = Q(status=Status.RUNNING) & ~Q(worker=row)
            free = Task.objects.filter(elsewhere | Q(status__in=TERMINAL), id__in=tasks).count()
            if free == len(tasks) and not times[row]:
                times[row] = time.monotonic() - began
        return all(times.values())

    wait_until(all_are_free, timeout)
    return list(times.values())


def kill_cohorts(
    start: WorkerFactory,
    directory: Path,
    *,
    rounds: int,
    size: int = COHORT,
    cq: Mapping[str, Any],
    env: Mapping[str, str],
    timeout: float,
) -> list[float]:
    """Kill cohort after cohort in the middle of their work; return what each recovery took."""
    observer = start(*LARGE, cq=cq)
    ids, times = list[UUID](), list[float]()
    for number in range(rounds):
        end = directory / f"end-{number}"
        cohort = start_cohort(start, size, env=env, cq=cq)
        with standing_still(observer):
            bodies = (kinds.lingering, kinds.lingering, kinds.lingering_atomic) * size
            ids += [body.delay(str(end)).id for body in bodies]
            held = held_by(cohort, each=EACH)
        for worker in cohort:
            worker.send(signal.SIGKILL)
        times += recovery_times(held, timeout)
        assert {worker.process.wait(10) for worker in cohort} == {-signal.SIGKILL}
        end.touch()
        wait_until(is_over, timeout=30)
    verdict = judge(ids)
    print(  # noqa: T201
        f"\n{len(times)} kills: recovered in {statistics.median(times):.2f} s (median), "
        f"{max(times):.2f} s (slowest); {verdict}"
    )
    assert not verdict.broken, verdict
    assert verdict.recovered == len(ids) == rounds * size * EACH
    assert set(Task.objects.values_list("crashes", "attempts")) == {(1, 2)}
    assert observer.stop() == 0
    return times


@pytest.mark.parametrize("host", ["", "elsewhere"], ids=["on this host", "on another host"])
def test_p10_tasks_of_fifty_killed_workers_run_elsewhere_in_time(
    worker_process: WorkerFactory, tmp_path: Path, host: str
) -> None:
    within = LEASE + 3 * HEARTBEAT + POLL
    env = {"CQ_TEST_HOST": host} if host else {}
    times = kill_cohorts(
        worker_process, tmp_path, rounds=50 // COHORT, cq=SETTINGS, env=env, timeout=within + 20
    )
    assert len(times) == 50
    # Here the process is seen to be gone; from elsewhere only its silence tells.
    if host:
        assert statistics.median(times) > LEASE - HEARTBEAT
        assert max(times) < within
    else:
        assert max(times) < 3 * HEARTBEAT


@pytest.mark.parametrize("host", ["", "elsewhere"], ids=["on this host", "on another host"])
def test_p10_at_the_default_times(worker_process: WorkerFactory, tmp_path: Path, host: str) -> None:
    lease, heartbeat, poll = 30.0, 5.0, 2.0
    within = lease + 3 * heartbeat + poll if host else 15.0
    env = {"CQ_TEST_HOST": host} if host else {}
    times = kill_cohorts(
        worker_process, tmp_path, rounds=1, size=5, cq=MODULES, env=env, timeout=within + 20
    )
    assert len(times) == 5
    assert max(times) < within
    assert (statistics.median(times) > lease - heartbeat) == bool(host)


def test_p26_a_hundred_workers_end_in_time_on_sigterm(
    worker_process: WorkerFactory, tmp_path: Path
) -> None:
    times, ids, handed_back = list[float](), list[UUID](), 0
    for number in range(100 // COHORT):
        soon, end = tmp_path / f"soon-{number}", tmp_path / f"end-{number}"
        cohort = start_cohort(worker_process, COHORT, "--grace", str(GRACE), env={}, cq=SETTINGS)
        # One of the coroutines ends within the grace, the other and the thread do not.
        calls = [(kinds.lingering, soon), (kinds.lingering, end), (kinds.lingering_atomic, end)]
        mine = [body.delay(str(path)).id for body, path in calls for _ in range(COHORT)]
        ids += mine
        running = Task.objects.filter(id__in=mine, status=Status.RUNNING)
        wait_until(lambda running=running: running.count() == EACH * COHORT, timeout=30)
        began = time.monotonic()
        for worker in cohort:
            worker.send(signal.SIGTERM)
        soon.touch()
        for worker in cohort:
            assert worker.process.wait(GRACE + 20) == 0, worker.output()
            times.append(time.monotonic() - began)
            assert "Traceback" not in worker.output()
        assert not Worker.objects.filter(alive=True).exists()
        states = Task.objects.filter(id__in=mine).values_list("status", "attempts", "releases")
        assert sorted(states) == [("Q", 0, 1)] * 2 * COHORT + [("S", 1, 0)] * COHORT
        handed_back += 2 * COHORT
        end.touch()
    print(  # noqa: T201
        f"\n{len(times)} ends in {max(times):.2f} s at most; {handed_back} tasks handed back"
    )
    assert len(times) == 100
    assert max(times) < GRACE + 5
    last = worker_process(*LARGE, cq=SETTINGS)
    wait_until(is_over, timeout=60)
    verdict = judge(ids)
    assert not verdict.broken, verdict
    assert set(Task.objects.values_list("crashes", flat=True)) == {0}
    assert last.stop() == 0


# --- zombies ------------------------------------------------------------------------------------

ZOMBIES, FREEZES = 10, 10


def everything() -> list[Any]:
    """All that a worker writes about tasks, and what their bodies wrote."""
    return [
        *(list(model.objects.order_by("pk").values()) for model in (Task, LogLine, Progress)),
        list(Effect.objects.order_by("pk").values()),
        entries(),
    ]


def awaited(end: Path) -> Path:
    """What bodies that wait for this file say so beside."""
    return Path(f"{end}-awaited")


def noted(end: Path, cohort: list[WorkerProcess]) -> int:
    """How many bodies have said so beside the file, in these processes."""
    path, pids = Path(f"{end}-notes"), {str(worker.pid) for worker in cohort}
    lines = path.read_text().split("\n") if path.exists() else []
    return sum(line.partition(" ")[0] in pids for line in lines)


def test_a_hundred_zombies_change_nothing(worker_process: WorkerFactory, tmp_path: Path) -> None:
    zombies = start_cohort(worker_process, ZOMBIES, env={}, cq=SETTINGS | {"PROCESSES": 1})
    observer = worker_process(*LARGE, cq=SETTINGS | {"PROCESSES": 4})
    bodies = (kinds.lingering_parent, kinds.lingering_parent_async, kinds.lingering_parent_async)
    ids, frozen, ended_as_zombies = list[UUID](), 0, 0
    for number in range(FREEZES):
        end = tmp_path / f"end-{number}"
        with standing_still(observer):
            ids += [body.delay(str(end)).id for body in bodies * ZOMBIES]
            held = held_by(zombies, each=EACH)
            for zombie in zombies:
                freeze(zombie)
            # Any other is caught before its first step, or in a statement that is ended.
            begun = noted(awaited(end), zombies)
        wait_until(
            lambda held=held: not Worker.objects.filter(id__in=held, alive=True).exists(),
            timeout=30,
        )
        end.touch()
        wait_until(is_over, timeout=60)
        known = everything()
        assert noted(end, zombies) == 0
        for zombie in zombies:
            zombie.send(signal.SIGCONT)
        # The bodies go on to their end, and what they planned and wrote is to be discarded.
        wait_until(lambda end=end, begun=begun: noted(end, zombies) >= begun, timeout=30)
        assert {live_row(zombie).id for zombie in zombies}.isdisjoint(held)
        frozen += len(zombies)
        ended_as_zombies += noted(end, zombies)
        assert everything() == known
    pids = [zombie.pid for zombie in zombies]
    verdict = judge(ids)
    print(f"\n{frozen} zombies, {ended_as_zombies} bodies of theirs; {verdict}")  # noqa: T201
    assert frozen == 100
    assert ended_as_zombies >= 2 * frozen
    assert not verdict.broken, verdict
    assert verdict.recovered == len(ids)
    assert not Effect.objects.filter(pid__in=pids, kind="lingering parent").exists()
    for worker in (*zombies, observer):
        assert worker.stop() == 0, worker.output()

"""
The sweep: every failpoint, passed by every kind of task that reaches it, kills and raises.

Two workers are armed with one point and replaced whenever it has killed one. Waves of every
kind of task go through them until the point has bitten for each function that can reach it;
the marks it leaves are the proof. Then the verdict is spoken over all rows and effects.
`REACHED` is the matrix, point by function; a point that nothing reaches fails. A part of it runs
on SQLite as well.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cq import failpoints
from cq.definition.status import TERMINAL, Status
from cq.models import RepeatingTask, Task
from cq.workflow.revoke import revoke_now
from tests.faults.ledger import ledger
from tests.faults.verdict import Verdict, judge
from tests.sampleapp import kinds
from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]

# A worker that dies takes a crash to everything it runs, and here one dies for each function.
SETTINGS = {
    "TASK_MODULES": [kinds.MODULE],
    "LEASE": 2.0,
    "HEARTBEAT": 0.3,
    "POLL": 0.5,
    "MAX_CRASHES": 100,
    "MAX_RELEASES": 100,
    "PROCESSES": 2,
}
HERE = {
    *("speaking", "async_one", "sync_one", "atomic_one", "committed_one", "parent"),
    *("atomic_parent", "leaf", "head", "tail", "retrying", "failing", "ticking"),
}
ALL = HERE | {"child_process_one"}
PARENTS = {"parent", "atomic_parent"}
SPEAKING = {"speaking"}  # others end before their lines are flushed, mostly
IN_A_CHILD = ("before_answer",)
ANYBODY = {""}
REACHED: dict[str, set[str]] = {
    "before_insert": {"ticking"},
    "after_insert": {"ticking"},
    "before_ring": ALL,
    "before_send": ANYBODY,
    "after_send": ANYBODY,
    "after_receive": ANYBODY,
    "before_claim": ANYBODY,
    "after_claim_commit": ALL,
    "after_claim": ALL,
    "before_body": ALL,
    "after_body": ALL,
    "before_completion": ALL
    - {"atomic_one", "committed_one", "atomic_parent", "leaf"}
    - {"tail", "ticking", "child_process_one"},
    "mid_completion": ALL,
    "mid_spawn": PARENTS,
    "mid_settle": {"leaf", "head", "parent", "atomic_parent", "tail", "failing"},
    "mid_errorbacks": {"failing"},
    "before_completion_commit": ALL,
    "after_completion_commit": ALL,
    "before_flush": SPEAKING,
    "after_flush": SPEAKING,
    "before_beat": ANYBODY,
    "after_beat": ANYBODY,
    "mid_fire": {"ticking"},
    "before_fire_commit": {"ticking"},
    "before_answer": {"child_process_one"},
}
"""What each point is passed by; the others have tests of their own below."""
OF_A_RESCUE = ("after_declare_dead", "mid_put_back", "after_put_back")
OF_A_REVOKE = ("mid_revoke",)
OF_AN_END = ("before_leave",)
WITHIN = 120.0


class Sweep:
    """One point under one action: its workers, its marks, and what was enqueued."""

    def __init__(self, start: WorkerFactory, point: str, action: str, marks: Path) -> None:
        self._start, self._waves = start, 0
        self.point, self.action, self.marks = point, action, marks
        marks.mkdir()
        self.enqueued: list[UUID] = []
        self.workers: list[WorkerProcess] = []
        self.deaths = 0

    def worker(self, *, ready: bool = False) -> WorkerProcess:
        """Start one more armed worker."""
        arms = {
            "CQ_FAILPOINT": f"{self.point}:{self.action}",
            "CQ_FAILPOINT_MARKS": str(self.marks),
        }
        self.workers.append(self._start("-c", "20", cq=SETTINGS, env=arms, ready=ready))
        return self.workers[-1]

    def replace_the_dead(self) -> None:
        """Start a worker for each that the point has killed."""
        for worker in list(self.workers):
            if not worker.is_running:
                assert worker.process.returncode == -signal.SIGKILL, worker.output()
                self.workers.remove(worker)
                self.deaths += 1
                self.worker()

    def bitten(self) -> set[str]:
        """The functions whose passage bit; an empty name where no task is concerned."""
        marks = [path.name.partition("@") for path in self.marks.iterdir()]
        assert {point for point, _, _ in marks} <= {self.point}
        return {name.rpartition(".")[2] for _, _, name in marks}

    def wave(self) -> None:
        """Enqueue one task of each kind, and let a repeating task fire."""
        self._waves += 1
        self.enqueued += [call().id for call in kinds.ENQUEUE.values()]
        RepeatingTask.objects.filter(
            pk=RepeatingTask.objects.create(
                name=f"wave {self._waves}", func_name=kinds.ticking.name, crontab="0 0 1 1 *"
            ).pk
        ).update(next_run=datetime.now(UTC) - timedelta(minutes=1))

    def is_quiet(self) -> bool:
        """Whether everything has ended, and every entry has fired."""
        self.replace_the_dead()
        return (
            not Task.objects.exclude(status__in=TERMINAL).exists()
            and Task.objects.filter(func_name=kinds.ticking.name).count() >= self._waves
        )


def sweep(
    start: WorkerFactory, wait_until: WaitUntil, point: str, action: str, marks: Path
) -> Verdict:
    """Send waves through armed workers until the point has bitten everybody it can."""
    run = Sweep(start, point, action, marks)
    expected = REACHED[point]
    for _ in range(2):
        run.worker()
    for _ in range(6):
        run.wave()
        wait_until(run.is_quiet, timeout=WITHIN)
        if run.bitten() >= expected:
            break
    assert expected <= run.bitten(), f"{point} was not passed by {expected - run.bitten()}"
    ticks = Task.objects.filter(func_name=kinds.ticking.name).values_list("id", flat=True)
    verdict = judge([*run.enqueued, *ticks])
    if action == "kill" and point not in IN_A_CHILD:
        wait_until(lambda: run.replace_the_dead() or run.deaths, timeout=10)
    assert not verdict.broken, verdict
    print(  # noqa: T201
        f"\n{point} {action}: {len(run.bitten())} bites, {run.deaths} deaths, {verdict}"
    )
    return verdict


@pytest.fixture(autouse=True)
def _ledger(database: Any) -> Iterator[None]:
    with ledger():
        yield


SAMPLE = {("after_claim", "kill"), ("before_completion_commit", "raise")}


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", REACHED)
@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_nothing_breaks_wherever_a_worker_dies_or_fails(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path, point: str, action: str
) -> None:
    sweep(worker_process, wait_until, point, action, tmp_path / "marks")


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", OF_A_RESCUE)
@pytest.mark.exhaustive
@pytest.mark.timeout(120)
def test_nothing_breaks_when_a_rescuer_dies_or_fails(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path, point: str, action: str
) -> None:
    victim = worker_process("--no-scheduler", cq=SETTINGS)
    end, bodies = tmp_path / "end", (kinds.lingering, kinds.lingering_atomic)
    tasks = [body.delay(str(end)) for body in bodies for _ in range(3)]
    wait_until(lambda: Task.objects.filter(status=Status.RUNNING).count() == 6)
    victim.kill()
    end.touch()
    run = Sweep(worker_process, point, action, tmp_path / "marks")
    for _ in range(2):
        run.worker()
    wait_until(run.is_quiet, timeout=WITHIN)
    assert run.bitten()
    verdict = judge([task.id for task in tasks])
    assert not verdict.broken, verdict
    assert verdict.recovered == 6
    assert bool(run.deaths) == (action == "kill")


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", OF_A_REVOKE)
@pytest.mark.exhaustive
@pytest.mark.timeout(120)
def test_nothing_breaks_when_a_revoker_dies_or_fails(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path, point: str, action: str
) -> None:
    worker_process("--no-scheduler", cq=SETTINGS)
    tree = kinds.revoked_parent.delay()
    wait_until(lambda: Task.objects.filter(status=Status.RUNNING).count() == kinds.CHILDREN)
    marks = tmp_path / "marks"
    marks.mkdir()
    arms = {"CQ_FAILPOINT": f"{point}:{action}", "CQ_FAILPOINT_MARKS": str(marks)}
    # Each of the passes moves rows of a function: it bites at each of them in turn.
    for _ in range(len(failpoints.POINTS)):
        revoker = worker_process.manage("cancel", str(tree.id), cq=SETTINGS, env=arms)
        if revoker.process.wait(30) == 0:
            break
    assert {path.name.rpartition(".")[2] for path in marks.iterdir()} >= {"revoked_parent"}
    revoke_now(tree.id)
    wait_until(lambda: not Task.objects.exclude(status__in=TERMINAL).exists())
    verdict = judge([tree.id])
    assert not verdict.broken, verdict


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", OF_AN_END)
@pytest.mark.exhaustive
def test_nothing_breaks_when_a_worker_dies_on_its_way_out(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path, point: str, action: str
) -> None:
    run = Sweep(worker_process, point, action, tmp_path / "marks")
    leaving = run.worker(ready=True)
    run.wave()
    wait_until(run.is_quiet, timeout=WITHIN)
    leaving.send(signal.SIGTERM)
    code = leaving.process.wait(20)
    assert (code == -signal.SIGKILL) == (action == "kill"), leaving.output()
    assert run.bitten() == ANYBODY
    follower = worker_process(cq=SETTINGS)
    wait_until(lambda: follower.rows() and "is dead" in follower.output(), timeout=10)
    verdict = judge(run.enqueued)
    assert not verdict.broken, verdict


def test_every_point_is_swept():
    swept = {*REACHED, *OF_A_RESCUE, *OF_A_REVOKE, *OF_AN_END}
    assert swept == set(failpoints.POINTS)


@pytest.mark.parametrize(("point", "action"), sorted(SAMPLE))
@pytest.mark.timeout(120)
def test_two_points_of_the_sweep(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path, point: str, action: str
) -> None:
    sweep(worker_process, wait_until, point, action, tmp_path / "marks")

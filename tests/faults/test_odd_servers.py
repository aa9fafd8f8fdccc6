"""
PostgreSQL on a disk that is full for a while, and under a clock that steps.

Each test has a server of its own: one whose data lie on a small file system, and one whose
wall clock is read through `stepping_clock.c`. Both say how they know that the fault bit.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import Error, connection

from cq.definition.status import TERMINAL, Status
from cq.models import RepeatingTask, Task, Worker
from cq.testing import wait_for
from tests.conftest import Database
from tests.faults.conftest import pointed_at
from tests.faults.ledger import ledger
from tests.faults.monkey import direct
from tests.faults.verdict import judge
from tests.sampleapp import kinds
from tests.sampleapp.tasks import noop
from tests.services import Server, ServiceUnavailable, start
from tests.settings import DATABASE_KIND
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(240),
    pytest.mark.skipif(DATABASE_KIND != "postgres", reason="PostgreSQL is what goes wrong here"),
]
SETTINGS = {"TASK_MODULES": [kinds.MODULE], "LEASE": 2.0, "HEARTBEAT": 0.3, "POLL": 0.5}
SPACE = 96
TEN_MINUTES = 600


@pytest.fixture
def database(server: Server, django_db_setup: None, django_db_blocker: Any) -> Iterator[Database]:
    """The server of the test, in place of that of the run."""
    with django_db_blocker.unblock(), pointed_at(server.url) as database, ledger():
        yield database


def is_over() -> bool:
    return direct(lambda: not Task.objects.exclude(status__in=TERMINAL).exists())


def let_pass(seconds: float) -> None:
    """Wait until so much time has passed by a clock that does not step."""
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, timeout=seconds + 10)


def beats() -> dict[UUID, int]:
    return dict(Worker.objects.filter(alive=True).values_list("id", "beat"))


def read_book(path: Path) -> tuple[int, list[UUID]]:
    """How many calls a producer tried, and what it was told."""
    lines = path.read_text().split("\n")[:-1]
    return lines.count("try"), [UUID(line) for line in lines if line != "try"]


# --- a full disk --------------------------------------------------------------------------------


class TestDisk:
    @pytest.fixture
    def server(self) -> Iterator[Server]:
        # What was committed must outlive the crash that a full log is for PostgreSQL.
        server = start("postgres", durable=True, space=SPACE)
        yield server
        server.close()

    def test_f29_a_disk_that_is_full_for_a_while(
        self, worker_process: WorkerFactory, server: Server, tmp_path: Path
    ) -> None:
        book, end, refusals = tmp_path / "book", tmp_path / "end", set[str]()
        workers = [worker_process("--no-scheduler", cq=SETTINGS) for _ in range(2)]
        producer = worker_process.manage("produce", str(book), "--rate", "40", cq=SETTINGS)
        own = [kinds.lingering.delay(str(end)).id for _ in range(4)]
        running = Task.objects.filter(id__in=own, status=Status.RUNNING)
        wait_until(lambda: running.count() == 4)
        wait_until(lambda: Task.objects.filter(status=Status.SUCCESS).count() > 100, timeout=30)

        def is_refused() -> bool:
            try:
                own.append(kinds.async_one.delay().id)
            except Error as problem:
                refusals.add(str(problem))
            return any("No space left" in refusal for refusal in refusals)

        def has_crashed() -> bool:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_switch_wal(), pg_current_xact_id()")
            except Error as problem:
                refusals.add(str(problem))
                connection.close()
            return any("closed the connection" in refusal for refusal in refusals)

        server.fill()
        wait_until(is_refused, timeout=30)
        # Without room for its log a server goes down, and it cannot come up again.
        wait_until(has_crashed, timeout=30)
        let_pass(4)  # longer than a lease
        server.free()
        server.resume()
        end.touch()
        direct(lambda: wait_until(lambda: running.count() == 0, timeout=30))
        producer.kill()
        wait_until(is_over, timeout=60)
        tried, told = read_book(book)
        verdict = judge([*own, *told], attempted=tried + len(own))
        print(f"\n{sorted(refusals)}\n{verdict}")  # noqa: T201
        assert not verdict.broken, verdict
        assert set(Task.objects.values_list("crashes", flat=True)) == {0}
        for worker in workers:
            assert "is dead" not in worker.output()
            assert worker.stop() == 0, worker.output()


# --- a clock that steps -------------------------------------------------------------------------


class Clock:
    """The wall clock of a server, which a test sets."""

    def __init__(self, directory: Path) -> None:
        self._offset, self._library = directory / "offset", directory / "stepping_clock.so"
        self.step_to(0)
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise ServiceUnavailable(
                "The test of a stepping clock needs a C compiler. Run `apt-get install gcc`."
            )
        source = Path(__file__).with_name("stepping_clock.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, source, "-ldl"], check=True
        )
        # For the user that PostgreSQL runs as.
        for path, mode in ((directory, 0o755), (self._offset, 0o644), (self._library, 0o755)):
            path.chmod(mode)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CQ_CLOCK_OFFSET": str(self._offset)}

    def step_to(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the true time."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    @staticmethod
    def reading() -> float:
        """How many seconds the server is ahead of this process."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return (cursor.fetchone()[0] - datetime.now(UTC)).total_seconds()


class TestClock:
    @pytest.fixture
    def clock(self) -> Iterator[Clock]:
        with tempfile.TemporaryDirectory(prefix="cq-clock-", dir="/tmp") as directory:
            yield Clock(Path(directory))

    @pytest.fixture
    def server(self, clock: Clock) -> Iterator[Server]:
        server = start("postgres", environment=clock.environment)
        yield server
        server.close()

    # What is queued when a clock goes back waits until the clock has caught up.
    @pytest.mark.parametrize(
        "steps",
        [[TEN_MINUTES, 0, TEN_MINUTES], [-TEN_MINUTES, 0]],
        ids=["ahead, back, and ahead again", "back and ahead"],
    )
    def test_f34_a_clock_that_steps_repeats_nothing(
        self, worker_process: WorkerFactory, clock: Clock, steps: list[int], tmp_path: Path
    ) -> None:
        end, ids = tmp_path / "end", list[UUID]()
        workers = [worker_process("--no-scheduler", cq=SETTINGS) for _ in range(3)]
        lingering = [body.delay(str(end)) for body in (kinds.lingering, kinds.lingering_atomic) * 4]
        running = Task.objects.filter(id__in=[task.id for task in lingering], status=Status.RUNNING)
        wait_until(lambda: running.count() == 8)
        for step in steps:
            ids += [call().id for call in kinds.ENQUEUE.values()]
            before = beats()
            clock.step_to(step)
            assert abs(clock.reading() - step) < 5
            ids += [call().id for call in kinds.ENQUEUE.values()]
            noop.delay().wait(10)
            # For longer than a lease, everybody beats on under the row that it had.
            let_pass(4)
            after = beats()
            assert after.keys() == before.keys()
            assert all(after[worker] > before[worker] + 5 for worker in before)
        assert running.count() == 8
        end.touch()
        wait_until(is_over, timeout=30)
        verdict = judge([*ids, *(task.id for task in lingering)])
        assert not verdict.broken, verdict
        rows = Task.objects.values_list("crashes", "releases", "attempts", "retries")
        assert {(died, freed, ran - again) for died, freed, ran, again in rows} == {(0, 0, 1)}
        for worker in workers:
            assert "dead" not in worker.output()
            assert worker.stop() == 0, worker.output()

    def test_f34_what_is_due_shifts_by_the_step_and_no_tick_comes_twice(
        self, worker_process: WorkerFactory, clock: Clock
    ) -> None:
        worker_process(cq=SETTINGS)
        later = kinds.async_one.using(run_after=TEN_MINUTES / 2).delay()
        entry = RepeatingTask.objects.create(func_name=kinds.ticking.name, crontab="*/5 * * * *")
        first = entry.next_run
        clock.step_to(TEN_MINUTES)
        wait_for(later, Status.SUCCESS, timeout=30)
        ticks = Task.objects.filter(func_name=kinds.ticking.name)
        wait_until(ticks.exists, timeout=30)
        entry.refresh_from_db()
        moved = entry.next_run
        assert moved > first + timedelta(minutes=5)
        clock.step_to(0)
        noop.delay().wait(10)
        # Ticks that have fired do not fire again; the next one waits for the clock.
        let_pass(12)
        entry.refresh_from_db()
        assert entry.next_run == moved
        assert ticks.count() == 1
        clock.step_to(TEN_MINUTES + 300)
        wait_until(lambda: ticks.count() == 2, timeout=30)

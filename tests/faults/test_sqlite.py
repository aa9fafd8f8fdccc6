"""
SQLite: four workers on one file, killed with -9 in the middle of it, and a lock held by others.

Its own part of the run (`CQ_TEST_DB=sqlite`), with the ledger and the verdict of the others. A
database that is busy is no sign of death: while somebody else holds the one write lock, no
worker can beat, and none may be declared dead.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from cq.definition.status import TERMINAL, Status
from cq.models import Task, Worker
from cq.testing import wait_for
from tests.conftest import Database
from tests.faults.ledger import ledger
from tests.faults.verdict import judge
from tests.sampleapp import kinds, trouble
from tests.sampleapp.tasks import where
from tests.settings import DATABASE_KIND
from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
    pytest.mark.skipif(DATABASE_KIND != "sqlite", reason="SQLite is what goes wrong here"),
]
SETTINGS = {
    "TASK_MODULES": [kinds.MODULE, trouble.MODULE],
    "LEASE": 2.0,
    "HEARTBEAT": 0.3,
    "POLL": 0.5,
    "MAX_CRASHES": 100,
    "PROCESSES": 2,
}
OPTIONS = ("--no-scheduler", "-c", "4", "--threads", "2")
WORKERS, KILLS, LOCKED = 4, 16, 5.0
SEED = int(os.environ.get("CQ_MONKEY_SEED") or random.randrange(10_000))


@pytest.fixture(autouse=True)
def _ledger(database: Any) -> Iterator[None]:
    with ledger():
        yield


def is_over() -> bool:
    return not Task.objects.exclude(status__in=TERMINAL).exists()


def held_by(worker: WorkerProcess) -> int:
    rows = Worker.objects.filter(pid=worker.pid, alive=True)
    return Task.objects.filter(status=Status.RUNNING, worker__in=rows).count()


def book_of(path: Path) -> tuple[int, list[UUID]]:
    """How many calls a producer tried, and what it was told."""
    lines = path.read_text().split("\n")[:-1]
    return lines.count("try"), [UUID(line) for line in lines if line != "try"]


def is_locked(file: str) -> bool:
    """Whether a writer that does not wait is refused."""
    with closing(sqlite3.connect(file, timeout=0)) as other:
        try:
            other.execute("DELETE FROM sampleapp_note")
        except sqlite3.OperationalError as problem:
            return "locked" in str(problem)
        return False


@pytest.fixture
def wal(database: Database) -> Path:
    """The write-ahead log beside the file of the database."""
    return Path(database.url.removeprefix("sqlite:///") + "-wal")


def test_f38_four_workers_on_one_file_are_killed_in_its_log(
    worker_process: WorkerFactory, wait_until: WaitUntil, wal: Path, tmp_path: Path
) -> None:
    chance, bites, own = random.Random(SEED), Counter[str](), list[UUID]()
    workers = [worker_process(*OPTIONS, cq=SETTINGS) for _ in range(WORKERS)]
    book = tmp_path / "book"
    producer = worker_process.manage("produce", str(book), "--rate", "12", cq=SETTINGS)
    for _ in range(KILLS):
        place = chance.randrange(WORKERS)
        victim = workers[place]
        wait_until(victim.rows, timeout=30)
        began, pause = time.monotonic(), chance.uniform(0, 0.5)
        wait_until(lambda began=began, pause=pause: time.monotonic() - began > pause)
        own += [kinds.dozing.delay(0.5).id for _ in range(2 * WORKERS)]
        wait_until(lambda victim=victim: held_by(victim), timeout=30)
        bites["into a log with frames"] += wal.stat().st_size > 0
        victim.kill()
        assert victim.process.returncode == -signal.SIGKILL
        bites["with tasks"] += held_by(victim) > 0
        workers[place] = worker_process(*OPTIONS, cq=SETTINGS, ready=False)
    producer.kill()
    wait_until(is_over, timeout=120)
    tried, told = book_of(book)
    verdict = judge([*own, *told], attempted=len(own) + tried)
    print(f"\nseed {SEED}: {KILLS} kills, {dict(bites)}\n{verdict}")  # noqa: T201
    assert not verdict.broken, f"seed {SEED}: {verdict}"
    assert bites["into a log with frames"] == KILLS
    assert bites["with tasks"] >= KILLS / 2
    assert verdict.recovered >= KILLS / 2
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        assert cursor.fetchall() == [("ok",)]
    for worker in workers:
        wait_until(worker.rows, timeout=30)
        assert worker.stop() == 0, worker.output()


@pytest.mark.parametrize("patience", [20, 1], ids=["waiting long enough", "giving up in between"])
def test_f38_a_lock_held_by_others_is_no_death(
    worker_process: WorkerFactory,
    wait_until: WaitUntil,
    database: Database,
    patience: int,
    tmp_path: Path,
) -> None:
    end = tmp_path / "end"
    env = {"CQ_TEST_SQLITE_TIMEOUT": str(patience)}
    workers = [worker_process(*OPTIONS, cq=SETTINGS, env=env) for _ in range(WORKERS)]
    tasks = [kinds.lingering.delay(str(end)) for _ in range(2 * WORKERS)]
    tasks += [kinds.sync_one.delay() for _ in range(2 * WORKERS)]
    tasks += [call() for call in kinds.ENQUEUE.values()]
    wait_until(lambda: Task.objects.filter(status=Status.RUNNING).count() >= WORKERS)
    before = dict(Worker.objects.filter(alive=True).values_list("pid", "beat"))
    file = database.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        held = set(Task.objects.filter(status=Status.RUNNING).values_list("id", flat=True))
        began = time.monotonic()
        assert is_locked(file)
        end.touch()  # so that bodies want to write as well
        # Longer than a lease: nobody can beat.
        wait_until(lambda: time.monotonic() - began > LOCKED)
        assert len(held) >= WORKERS
        during = dict(Worker.objects.filter(alive=True).values_list("pid", "beat"))
        holder.execute("ROLLBACK")
    assert before.keys() == during.keys()
    wait_until(is_over, timeout=60)
    verdict = judge([task.id for task in tasks])
    assert not verdict.broken, verdict
    assert verdict.recovered == 0
    # A body that asks the database itself is refused like anybody else, and tries again.
    rows = Task.objects.values_list("crashes", "releases", "attempts", "retries")
    assert {(crashes, releases, ran - again) for crashes, releases, ran, again in rows} == {
        (0, 0, 1)
    }
    for worker in workers:
        assert "is dead" not in worker.output()
        assert "declared dead" not in worker.output()
    pids = {worker.pid for worker in workers}
    assert wait_for(where.delay(), Status.SUCCESS, timeout=10).result in pids
    for worker in workers:
        assert worker.stop() == 0, worker.output()

"""PostgreSQL away for some seconds in mid-run: nothing runs twice, every result is stored."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import Error, connections

from cq.definition.status import Status
from cq.models import Task, Worker
from cq.testing import wait_for
from tests.sampleapp import trouble
from tests.sampleapp.tasks import noop, noop_atomic, write_effect_async
from tests.services import Server
from tests.settings import DATABASE_KIND, DATABASE_URL
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

TROUBLE = {"TASK_MODULES": [trouble.MODULE], "LEASE": 1.5, "HEARTBEAT": 0.3}

pytestmark = pytest.mark.skipif(
    DATABASE_KIND != "postgres" or bool(DATABASE_URL),
    reason="stops the private PostgreSQL of the run; there is none",
)


@pytest.fixture
def postgres(database: Any, postgres_server: Server) -> Iterator[Server]:
    """The PostgreSQL of the run, which is up again after the test."""
    yield postgres_server
    connections.close_all()
    try:
        connections["default"].ensure_connection()
    except Error:
        postgres_server.resume()


def kill(server: Server) -> None:
    """Kill it with everything on disk that was committed: it runs without fsync."""
    with connections["default"].cursor() as cursor:
        cursor.execute("CHECKPOINT")
    server.kill()


def lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.long
def test_an_outage_repeats_no_body_and_loses_no_result(
    worker_process: WorkerFactory, wait_until: WaitUntil, postgres: Server, tmp_path: Path
) -> None:
    evidence = tmp_path / "evidence"
    workers = [worker_process("--no-scheduler", cq=TROUBLE) for _ in range(2)]
    write_effect_async.delay().wait(10)
    bodies = (trouble.note_and_doze, trouble.note_and_sleep, trouble.note_in_a_child)
    kinds = {"async": 4, "thread": 4, "process": 1}
    tasks = [
        body.delay(str(evidence), 1.5)
        for body, count in zip(bodies, kinds.values(), strict=True)
        for _ in range(count)
    ]
    wait_until(lambda: len(lines(evidence)) == len(tasks), timeout=20)
    began = time.monotonic()
    kill(postgres)
    # Longer than a lease, and until the bodies have ended without a database.
    wait_until(lambda: time.monotonic() - began > 3, timeout=6)
    postgres.resume()
    connections.close_all()
    for task in tasks:
        wait_for(task, Status.SUCCESS, timeout=20)
        assert (task.attempts, task.crashes, task.releases) == (1, 0, 0)
    assert sorted(task.result for task in tasks) == sorted(
        kind for kind, count in kinds.items() for _ in range(count)
    )
    assert len(lines(evidence)) == len(tasks)
    # Every session is made anew: of the engine, of the threads, of the lanes.
    after = [body.delay() for body in (noop, noop_atomic, write_effect_async) for _ in range(10)]
    for task in after:
        wait_for(task, Status.SUCCESS, timeout=10)
    for worker in workers:
        assert "is dead" not in worker.output()
        assert "declared dead" not in worker.output()
        assert worker.stop() == 0
        assert "Traceback" not in worker.output()


@pytest.mark.long
def test_a_worker_ends_in_time_though_the_database_is_away(
    worker_process: WorkerFactory, wait_until: WaitUntil, postgres: Server, tmp_path: Path
) -> None:
    evidence = tmp_path / "evidence"
    worker = worker_process("--no-scheduler", "--grace", "1", cq=TROUBLE)
    short = trouble.note_and_doze.delay(str(evidence), 0.5)
    longer = trouble.note_and_sleep.delay(str(evidence), 60.0)
    wait_until(lambda: len(lines(evidence)) == 2)
    kill(postgres)
    began = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.process.wait(20) == 0, worker.output()
    assert time.monotonic() - began < 1 + 5
    assert "could not be written" in worker.output()
    postgres.resume()
    connections.close_all()
    assert Worker.objects.filter(alive=True).count() == 1
    heir = worker_process("--no-scheduler", cq=TROUBLE)
    wait_for(short, Status.SUCCESS, timeout=15)
    assert short.attempts == 2
    wait_until(lambda: Task.objects.get(id=longer.id).attempts == 2, timeout=15)
    heir.send(signal.SIGQUIT)
    assert heir.process.wait(10) == 6


def test_a_worker_waits_for_its_database_at_the_start(
    worker_process: WorkerFactory, wait_until: WaitUntil, postgres: Server
) -> None:
    task = noop.delay()
    postgres.halt()
    hopeless = worker_process("--max-wait", "0.5", ready=False)
    patient = worker_process("--no-scheduler", ready=False)
    assert hopeless.process.wait(20) == 3
    assert "did not answer within 0.5 s" in hopeless.output()
    assert "Traceback" not in hopeless.output()
    wait_until(lambda: "Waiting for the database" in patient.output())
    postgres.resume()
    connections.close_all()
    wait_for(task, Status.SUCCESS, timeout=15)
    assert patient.stop() == 0

"""
After Redis or PostgreSQL has come back, work goes on at its old rate within five seconds.

The rate is that of a producer, or of bodies that take a known time, so that the speed of the
machine does not decide. Every back-off of a worker and of a caller has to be short for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import Error, connection, connections

from cq.definition.status import Status
from cq.models import Task
from tests.conftest import Layers
from tests.faults.links import Link
from tests.faults.monkey import direct
from tests.sampleapp import kinds
from tests.sampleapp.tasks import doze
from tests.services import Server
from tests.settings import DATABASE_KIND, DATABASE_URL
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        DATABASE_KIND != "postgres" or bool(DATABASE_URL),
        reason="stops the private PostgreSQL of the run; there is none",
    ),
]
WITHIN, SPAN = 5.0, 3.0
LEAST = 0.8
# A lease of the usual length: an outage of seconds is nobody's death.
SETTINGS = {"TASK_MODULES": [kinds.MODULE]}


def let_pass(seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, timeout=seconds + 10)


def now() -> datetime:
    """The time of the server, by which rows are stamped."""

    def ask() -> datetime:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return cursor.fetchone()[0]

    return direct(ask)


def rate(begin: datetime) -> float:
    """How many tasks a second succeeded in the span that begins then."""
    ended = Task.objects.filter(
        status=Status.SUCCESS, finished__range=(begin, begin + timedelta(seconds=SPAN))
    )
    return direct(ended.count) / SPAN


def offered(begin: datetime) -> float:
    """How many tasks a second were submitted in that span."""
    span = (begin, begin + timedelta(seconds=SPAN))
    return direct(Task.objects.filter(submitted__range=span).count) / SPAN


def compare(before: float, returned: datetime, what: str, *, is_fed: bool = False) -> None:
    """
    The rate of the three seconds that end five seconds after the return, and of those after.

    One that `is_fed` by a producer cannot be higher than what that one manages to submit.
    """
    let_pass(WITHIN + SPAN + 0.5)
    begins = [returned + timedelta(seconds=start) for start in (WITHIN - SPAN, WITHIN)]
    after = [rate(begin) for begin in begins]
    print(  # noqa: T201
        f"\n{what}: {before:.0f} tasks/s before, {after[0]:.0f} and {after[1]:.0f} after"
    )
    for begin, found in zip(begins, after, strict=True):
        assert found >= LEAST * min(before, offered(begin) if is_fed else before)


@pytest.fixture
def postgres(database: Any, postgres_server: Server) -> Iterator[Server]:
    """The PostgreSQL of the run, which is up again after the test."""
    with connection.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    yield postgres_server
    connections.close_all()
    try:
        connection.ensure_connection()
    except Error:
        postgres_server.resume()


@pytest.mark.parametrize("away", [3.0, 12.0], ids=["for a moment", "until the waits are longest"])
def test_after_an_outage_of_redis_bells_ring_as_before(
    worker_process: WorkerFactory,
    use_layers: Layers,
    own_redis: Server,
    tmp_path: Path,
    away: float,
) -> None:
    use_layers("redis")
    # Nobody polls meanwhile: what runs was rung for.
    worker = worker_process("--no-scheduler", cq=SETTINGS | {"POLL": 600})
    options = ("--rate", "40", "--kinds", "async")
    producer = worker_process.manage("produce", str(tmp_path / "book"), *options, cq=SETTINGS)
    wait_until(lambda: Task.objects.filter(status=Status.SUCCESS).count() > 10, timeout=20)
    began = now()
    let_pass(SPAN + 0.5)
    before = rate(began)
    own_redis.kill()
    gone = now()
    let_pass(away)
    during = rate(gone + timedelta(seconds=away - SPAN))
    own_redis.resume()
    compare(before, now(), f"Redis away for {away:g} s", is_fed=True)
    assert before > 10
    assert during < before / 4
    producer.kill()
    assert worker.stop() == 0


@pytest.mark.parametrize("away", [3.0, 12.0], ids=["for a moment", "until the waits are longest"])
def test_after_an_outage_of_postgresql_slots_are_filled_as_before(
    worker_process: WorkerFactory, postgres: Server, away: float
) -> None:
    worker = worker_process("--no-scheduler", "-c", "8", cq=SETTINGS)
    doze.delay_many([((0.1,), {})] * 4000)
    wait_until(lambda: Task.objects.filter(status=Status.SUCCESS).count() > 20, timeout=20)
    began = now()
    let_pass(SPAN + 0.5)
    before = rate(began)
    with connection.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    postgres.kill()
    let_pass(away)
    postgres.resume()
    connections.close_all()
    compare(before, now(), f"PostgreSQL away for {away:g} s")
    assert before > 20
    assert worker.is_running
    Task.objects.filter(status=Status.QUEUED).delete()
    assert worker.stop() == 0


def test_after_a_black_hole_before_postgresql_slots_are_filled_as_before(
    worker_process: WorkerFactory, postgres: Server, database: Any
) -> None:
    link = Link.to(database.url)
    env = {"CQ_TEST_DATABASE_URL": link.through(database.url)}
    worker = worker_process("--no-scheduler", "-c", "8", cq=SETTINGS, env=env)
    doze.delay_many([((0.1,), {})] * 4000)
    wait_until(lambda: Task.objects.filter(status=Status.SUCCESS).count() > 20, timeout=20)
    began = now()
    let_pass(SPAN + 0.5)
    before = rate(began)
    link.stall()
    let_pass(6)
    assert link.bites["held"]
    link.heal()
    compare(before, now(), "a black hole before PostgreSQL for 6 s")
    Task.objects.filter(status=Status.QUEUED).delete()
    assert worker.stop() == 0
    link.close()

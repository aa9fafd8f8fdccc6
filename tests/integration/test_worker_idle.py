"""What a worker costs that has nothing to do: statements on the wire, and processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.faults.statements import CountingLink
from tests.sampleapp.tasks import noop
from tests.web_process import processor_seconds
from tests.workers import WorkerFactory

HEARTBEATS = 3
MOST_STATEMENTS = 3.0
MOST_OF_A_CORE = 0.02


@pytest.fixture
def link(database: Database) -> Iterator[CountingLink]:
    with closing(CountingLink(database.url)) as link:
        yield link


def test_the_link_counts_every_statement(link: CountingLink, database: Database) -> None:
    with psycopg.connect(link.through(database.url), autocommit=True) as session:
        before = link.statements
        for _ in range(7):
            session.execute("SELECT 1")
        for number in range(5):
            session.execute("SELECT %s::int", [number], prepare=True)
        assert link.statements - before == 12


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_idle_worker_costs_next_to_nothing(
    worker_process: WorkerFactory,
    link: CountingLink,
    database: Database,
    wait_until: Callable[..., Any],
) -> None:
    """With the default poll, heartbeat and rescuer; the scheduler and the tallies included."""
    worker = worker_process(env={"CQ_TEST_DATABASE_URL": link.through(database.url)})
    noop.delay().wait(10)
    (row,) = worker.rows()

    def beats(count: int) -> bool:
        row.refresh_from_db()
        return bool(row.beat >= count)

    wait_until(lambda: beats(1), timeout=20)
    began, statements = time.monotonic(), link.statements
    busy, first = processor_seconds(worker.pid), row.beat
    wait_until(lambda: beats(first + HEARTBEATS), timeout=60)
    seconds = time.monotonic() - began
    assert 0 < (link.statements - statements) / seconds <= MOST_STATEMENTS
    assert (processor_seconds(worker.pid) - busy) / seconds <= MOST_OF_A_CORE

"""
The monkey for 20 seconds, 5 minutes, or as long as CQ_SOAK_SECONDS says (`make soak`).

CQ_MONKEY_SEED repeats a run's choices; the seed stands in every report, with the diary.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connection, connections

from tests.conftest import Database
from tests.faults import vitals
from tests.faults.ledger import ledger
from tests.faults.monkey import DEFAULT, SHORT, Cluster, Monkey, direct, summary
from tests.faults.verdict import Verdict, judge
from tests.services import Server
from tests.settings import DATABASE_KIND, DATABASE_URL
from tests.workers import WorkerFactory

pytestmark = pytest.mark.skipif(
    DATABASE_KIND != "postgres" or bool(DATABASE_URL),
    reason="kills the private PostgreSQL of the run; there is none",
)
SEED = int(os.environ.get("CQ_MONKEY_SEED") or random.randrange(10_000))
SOAK = float(os.environ.get("CQ_SOAK_SECONDS", "0"))


@dataclass(slots=True)
class Run:
    """What a run of the monkey came to."""

    monkey: Monkey
    verdict: Verdict

    def __str__(self) -> str:
        grown = {sign: round(by, 1) for sign, by in vitals.growth(self.samples).items()}
        return (
            f"\nseed {SEED}: {summary(self.monkey)}\n{self.verdict}\n"
            f"the elder and the servers have grown by {grown}\n"
        )

    @property
    def samples(self) -> list[vitals.Sample]:
        return self.monkey.cluster.samples


Loose = Callable[..., Run]


@pytest.fixture
def durable_commits(database: Database) -> Iterator[None]:
    """The servers of a test run give up their last commits when they are killed; not this one."""
    connection.ensure_connection()
    name = connection.settings_dict["NAME"]

    def say(words: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" {words}')

    say("SET synchronous_commit = on")
    connections.close_all()
    yield
    direct(lambda: say("RESET synchronous_commit"))


@pytest.fixture
def loose(
    worker_process: WorkerFactory,
    database: Database,
    durable_commits: None,
    postgres_server: Server,
    own_redis: Server,
    tmp_path: Path,
) -> Iterator[Loose]:
    """Let the monkey loose for so many seconds, at so many calls a second, with such leases."""
    clusters: list[Cluster] = []

    def run(seconds: float, rate: float, times: Mapping[str, float] = SHORT) -> Run:
        with ledger():
            cluster = Cluster(
                worker_process,
                database_url=database.url,
                postgres=postgres_server,
                redis_server=own_redis,
                directory=tmp_path,
                rate=rate,
                times=times,
            )
            clusters.append(cluster)
            monkey = Monkey(cluster, SEED)
            try:
                monkey.run(seconds)
                cluster.stop_producing()
                cluster.settle(120)
            except AssertionError as problem:
                problem.add_note(f"The seed was {SEED}; the diary: {monkey.diary}")
                raise
            attempted, acknowledged = cluster.books()
            return Run(monkey, judge(acknowledged, attempted=attempted))

    yield run
    for cluster in clusters:
        cluster.close()


def check(run: Run, *, tasks: int, faults: int) -> None:
    """Everything as promised, and enough of it."""
    print(run)  # noqa: T201
    assert not run.verdict.broken, f"{run}\n{run.monkey.diary}"
    assert run.verdict.tasks >= tasks, run
    assert sum(run.monkey.done.values()) >= faults, run
    for worker in (run.monkey.cluster.elder, *run.monkey.cluster.workers):
        assert worker.stop(30) == 0, worker.output()


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.exhaustive
def test_twenty_seconds_of_trouble(loose: Loose) -> None:
    check(loose(20, 20), tasks=150, faults=4)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_five_minutes_of_trouble(loose: Loose) -> None:
    run = loose(300, 60)
    check(run, tasks=10_000, faults=80)
    assert not vitals.growing(run.samples), run


@pytest.mark.exhaustive
@pytest.mark.skipif(not SOAK, reason="run by `make soak`, or with CQ_SOAK_SECONDS")
@pytest.mark.timeout(SOAK * 2 + 900)
def test_trouble_for_as_long_as_you_like(loose: Loose) -> None:
    # At the times of production: a worker that is frozen or cut off is missed after 30 s.
    run = loose(SOAK, 40, DEFAULT)
    check(run, tasks=int(SOAK * 15), faults=int(SOAK / 20))
    assert not vitals.growing(run.samples), run

"""
The monkey: a seeded random mix of faults, against workers, producers, servers and links.

`Cluster` owns the processes: workers on two links to PostgreSQL, so that one half can be cut
off alone, one of which, the elder, is never killed; and producers that write down what was
acknowledged. `Monkey` draws from `FAULTS`; every fault proves that it bit, or fails the test.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import redis
from django.db import Error, connection, connections

from cq.definition.status import TERMINAL
from cq.models import RepeatingTask, Task, Worker
from cq.workflow.revoke import revoke_now
from tests.faults import vitals
from tests.faults.links import Link
from tests.sampleapp import kinds
from tests.services import Server
from tests.waiting import wait_until
from tests.workers import WorkerFactory, WorkerProcess

T = TypeVar("T")
SETTINGS = {"TASK_MODULES": [kinds.MODULE], "MAX_CRASHES": 100, "MAX_RELEASES": 1000}
SHORT = {"LEASE": 2.0, "HEARTBEAT": 0.3, "POLL": 0.5}
DEFAULT = {"LEASE": 30.0, "HEARTBEAT": 5.0, "POLL": 2.0}
GRACE = 2
PATIENCE = 30.0
_never = threading.Event()


def direct(look: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Ask the database as soon as it answers; the test's own session dies in faults as well."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return look()
        except Error:
            connections.close_all()
            if time.monotonic() > deadline:
                raise
            _never.wait(0.05)


class Cluster:
    """Workers, producers and links between them and two servers."""

    def __init__(
        self,
        start: WorkerFactory,
        *,
        database_url: str,
        postgres: Server,
        redis_server: Server,
        directory: Path,
        rate: float,
        times: Mapping[str, float] = SHORT,
    ) -> None:
        self._cq = SETTINGS | times
        self.silence = 2 * times["LEASE"] + PATIENCE
        self._start, self._directory, self._rate = start, directory, rate
        self.postgres, self.redis = postgres, redis_server
        self.links = (Link.to(database_url), Link.to(database_url))
        self.redis_link = Link.to(redis_server.url)
        self._database_url = database_url
        self._books: list[Path] = []
        self.own: list[UUID] = []
        self.samples: list[vitals.Sample] = []
        self.elder = self.worker(0)
        # The first of them stays behind the second link, also when it is replaced.
        self.workers = [self.worker(1), self.worker(0)]
        self.producer = self.produce()

    def _behind(self, link: Link) -> dict[str, str]:
        return {
            "CQ_TEST_DATABASE_URL": link.through(self._database_url),
            "CQ_TEST_REDIS_URL": self.redis_link.through(self.redis.url),
        }

    def worker(self, link: int) -> WorkerProcess:
        """Start a worker behind one of the links to PostgreSQL."""
        options = ("--grace", str(GRACE), "-c", "20")
        env = self._behind(self.links[link])
        return self._start(*options, cq=self._cq, env=env, ready=False)

    def produce(self) -> WorkerProcess:
        """Start a producer with a book of its own."""
        book = self._directory / f"book-{len(self._books)}"
        self._books.append(book)
        options = ("--rate", str(self._rate), "--seed", str(len(self._books)))
        env = self._behind(self.links[0])
        return self._start.manage("produce", str(book), *options, cq=self._cq, env=env)

    def is_up(self, worker: WorkerProcess) -> bool:
        """Whether a worker has a row that is alive."""
        assert worker.is_running, worker.output()
        return direct(lambda: Worker.objects.filter(pid=worker.pid, alive=True).exists())

    def books(self) -> tuple[int, list[UUID]]:
        """How many calls were tried, and what was acknowledged."""
        lines = [
            line
            for book in self._books
            if book.exists()
            for line in book.read_text().split("\n")[:-1]
        ]
        ids = [UUID(line) for line in lines if line != "try"]
        return lines.count("try") + len(self.own), [*ids, *self.own]

    def sample(self) -> None:
        """Look at the elder, the sessions and the keys."""
        signs = vitals.of_process(self.elder.pid)

        def sessions() -> int:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                )
                return int(cursor.fetchone()[0])

        with redis.Redis.from_url(self.redis.url) as client:
            signs |= {"sessions": direct(sessions), "keys": client.dbsize()}
        self.samples.append(vitals.Sample(time.monotonic(), signs))

    def stop_producing(self) -> None:
        """End the producer; what it has written is what was acknowledged."""
        self.producer.kill()

    def settle(self, timeout: float) -> None:
        """Mend every link and wait until nothing is left to fire or to do."""
        for link in (*self.links, self.redis_link):
            link.heal()

        def is_due() -> bool:
            return RepeatingTask.objects.filter(
                enabled=True, next_run__lte=datetime.now(UTC)
            ).exists()

        def is_quiet() -> bool:
            return not is_due() and not Task.objects.exclude(status__in=TERMINAL).exists()

        wait_until(lambda: direct(is_quiet), timeout)

    def close(self) -> None:
        """End the links; the processes end with their factory."""
        for link in (*self.links, self.redis_link):
            link.close()


class Monkey:
    """Draws one fault after the other; `done` counts them by name, `diary` is in order."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.chance = cluster, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.diary: list[str] = []

    def run(self, seconds: float) -> None:
        """Make trouble for so long."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            name = self.chance.choice(FAULTS)
            self.diary.append(f"{time.monotonic() - began:.1f} s: {name}")
            getattr(self, name)()
            self.done[name] += 1
            self._live_on()

    def _live_on(self) -> None:
        """Let some work be done, and some things happen that are no faults."""
        cluster = self.cluster
        _never.wait(self.chance.uniform(0.1, 0.6))
        assert cluster.elder.is_running, cluster.elder.output()
        cluster.sample()
        if self.chance.random() < 0.3:
            tree = direct(kinds.revoked_parent.delay)
            _never.wait(self.chance.uniform(0, 0.3))
            direct(lambda: revoke_now(tree.id))
            cluster.own.append(tree.id)
        if self.chance.random() < 0.3:
            direct(self._schedule)

    def _schedule(self) -> None:
        past = datetime.now(UTC) - timedelta(minutes=1)
        entry = RepeatingTask.objects.create(
            name=str(self.chance.random()), func_name=kinds.ticking.name, crontab="0 0 1 1 *"
        )
        RepeatingTask.objects.filter(pk=entry.pk).update(next_run=past)

    def _some_worker(self) -> tuple[int, WorkerProcess]:
        place = self.chance.randrange(len(self.cluster.workers))
        worker = self.cluster.workers[place]
        wait_until(lambda: self.cluster.is_up(worker), PATIENCE)
        return place, worker

    def _replace(self, place: int) -> None:
        self.cluster.workers[place] = self.cluster.worker(1 - place)

    # --- processes --------------------------------------------------------------------------

    def kill_a_worker(self) -> None:
        place, worker = self._some_worker()
        worker.kill()
        assert worker.process.returncode == -signal.SIGKILL
        self._replace(place)

    def terminate_a_worker(self) -> None:
        place, worker = self._some_worker()
        worker.send(signal.SIGTERM)
        assert worker.process.wait(GRACE + 25) == 0, worker.output()
        self._replace(place)

    def freeze_a_worker_past_its_lease(self) -> None:
        _, worker = self._some_worker()
        worker.send(signal.SIGSTOP)
        try:
            wait_until(lambda: not self.cluster.is_up(worker), self.cluster.silence)
        finally:
            worker.send(signal.SIGCONT)

    def freeze_a_worker_for_a_moment(self) -> None:
        _, worker = self._some_worker()
        worker.send(signal.SIGSTOP)
        state = Path(f"/proc/{worker.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        _never.wait(0.5)
        worker.send(signal.SIGCONT)

    def kill_the_producer(self) -> None:
        producer = self.cluster.producer
        producer.kill()
        assert producer.process.returncode == -signal.SIGKILL, producer.output()
        self.cluster.producer = self.cluster.produce()

    # --- servers ----------------------------------------------------------------------------

    def restart_redis(self) -> None:
        before = self.cluster.redis.pid
        self.cluster.redis.kill()
        _never.wait(self.chance.uniform(0, 1))
        self.cluster.redis.resume()
        assert self.cluster.redis.pid != before

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.cluster.redis.url) as client:
            client.set("bait", 1)
            client.flushall()
            assert client.get("bait") is None

    def kill_redis_clients(self) -> None:
        with redis.Redis.from_url(self.cluster.redis.url) as client:
            wait_until(lambda: client.client_kill_filter(_type="normal", skipme=True), PATIENCE)

    def restart_postgres(self) -> None:
        before = self.cluster.postgres.pid
        self.cluster.postgres.kill()
        _never.wait(self.chance.uniform(0, 1))
        self.cluster.postgres.resume()
        connections.close_all()
        assert self.cluster.postgres.pid != before

    def end_all_sessions(self) -> None:
        def end() -> int:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                return int(cursor.fetchone()[0])

        wait_until(lambda: direct(end), PATIENCE)

    def forbid_writing(self) -> None:
        """A failover half-way: the server answers, and takes no write."""

        def switch(value: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
                cursor.execute("SELECT pg_reload_conf()")

        def is_forbidden() -> bool:
            try:
                Worker.objects.filter(pid=0).update(pid=0)
            except Error as problem:
                return "read-only" in str(problem)
            return False

        direct(lambda: switch("on"))
        try:
            wait_until(is_forbidden, PATIENCE)
            _never.wait(self.chance.uniform(0, 1))
        finally:
            direct(lambda: switch("off"))

    # --- links ------------------------------------------------------------------------------

    def _some_link(self) -> Link:
        return self.chance.choice((*self.cluster.links, self.cluster.redis_link))

    def _spoil(self, link: Link, spoil: Callable[[], object], sign: str, seconds: float) -> None:
        before = link.bites[sign]
        spoil()
        try:
            _never.wait(seconds)
            wait_until(lambda: link.bites[sign] > before, PATIENCE)
        finally:
            link.heal()

    def reset_a_link(self) -> None:
        link = self._some_link()
        wait_until(link.reset, PATIENCE)

    def refuse_connections(self) -> None:
        link = self._some_link()
        self._spoil(link, link.refuse, "refused", 0.2)

    def cut_in_mid_message(self) -> None:
        link = self._some_link()
        count = self.chance.randrange(1, 8000)
        self._spoil(link, lambda: link.cut_after(count), "cut", 0.2)

    def trickle(self) -> None:
        link = self._some_link()
        self._spoil(link, link.trickle, "trickled", 0.5)

    def delay(self) -> None:
        link = self._some_link()
        self._spoil(link, lambda: link.delay(self.chance.uniform(0.01, 0.2)), "delayed", 0.7)

    def stall_for_a_moment(self) -> None:
        link = self._some_link()
        self._spoil(link, link.stall, "held", 0.7)

    def partition_past_the_lease(self) -> None:
        """The workers behind the second link reach nobody, and nobody tells them."""
        link = self.cluster.links[1]
        worker = self.cluster.workers[0]
        wait_until(lambda: self.cluster.is_up(worker), PATIENCE)
        before = link.bites["held"]
        link.stall()
        try:
            wait_until(lambda: not self.cluster.is_up(worker), self.cluster.silence)
        finally:
            link.heal()
        assert link.bites["held"] > before


FAULTS = (
    *("kill_a_worker", "terminate_a_worker", "freeze_a_worker_past_its_lease"),
    *("freeze_a_worker_for_a_moment", "kill_the_producer", "restart_redis", "flush_redis"),
    *("kill_redis_clients", "restart_postgres", "end_all_sessions", "forbid_writing"),
    *("reset_a_link", "refuse_connections", "cut_in_mid_message", "trickle", "delay"),
    *("stall_for_a_moment", "partition_past_the_lease"),
)


def summary(monkey: Monkey) -> dict[str, Any]:
    """What the monkey has done, for a report."""
    links = sum((link.bites for link in monkey.cluster.links), Counter())
    return {"faults": sum(monkey.done.values()), **monkey.done, "links": dict(links)}

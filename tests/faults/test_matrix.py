"""
The fault matrix: what is done to workers, Redis and PostgreSQL, and what must hold.

Here are the rows that no other test covers; `docs/inside/faults.md` names the test of each.
Every fault says how it knows that it bit. Leases are short; the full lengths are those of
`make soak`.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.db import connection, connections

from cq.definition.status import TERMINAL, Status
from cq.models import Task, Worker
from cq.testing import wait_for
from cq.transport.messages import channel_name, run_message
from cq.transport.own_layer import make_layer
from tests.conftest import Database
from tests.faults.ledger import ledger
from tests.faults.links import Link
from tests.faults.monkey import direct
from tests.faults.verdict import judge
from tests.sampleapp import kinds, trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import noop, where
from tests.services import Server
from tests.settings import DATABASE_KIND
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(240),
    pytest.mark.skipif(DATABASE_KIND != "postgres", reason="PostgreSQL is what goes wrong here"),
]
SETTINGS = {
    "TASK_MODULES": [kinds.MODULE, trouble.MODULE],
    "LEASE": 2.0,
    "HEARTBEAT": 0.3,
    "POLL": 0.5,
}


def running() -> int:
    return Task.objects.filter(status=Status.RUNNING).count()


def is_over() -> bool:
    return direct(lambda: not Task.objects.exclude(status__in=TERMINAL).exists())


def one_of_each() -> list[Any]:
    return [call().id for call in kinds.ENQUEUE.values()]


@pytest.fixture(autouse=True)
def _ledger(database: Any) -> Iterator[None]:
    with ledger():
        yield


@pytest.fixture
def alter(database: Database) -> Iterator[Callable[[str], None]]:
    """Change a setting of the database for sessions to come; put back afterwards."""
    connection.ensure_connection()
    name = connection.settings_dict["NAME"]

    def say(words: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" {words}')

    yield lambda words: say(f"SET {words}")
    connections.close_all()
    say("RESET ALL")


# --- workers ------------------------------------------------------------------------------------


LINGERING = (kinds.lingering, kinds.lingering_atomic)


def test_f3_a_freeze_within_the_lease_repeats_nothing(
    worker_process: WorkerFactory, wait_until: WaitUntil, tmp_path: Path
) -> None:
    settings, end = SETTINGS | {"LEASE": 6.0}, tmp_path / "end"
    frozen = worker_process("--no-scheduler", cq=settings)
    tasks = [body.delay(str(end)) for body in LINGERING for _ in range(4)]
    wait_until(lambda: running() == 8)
    observer = worker_process("--no-scheduler", cq=settings)
    frozen.send(signal.SIGSTOP)
    state = Path(f"/proc/{frozen.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 3)
    assert running() == 8
    frozen.send(signal.SIGCONT)
    end.touch()
    wait_until(is_over, timeout=20)
    assert set(Task.objects.values_list("status", "attempts", "crashes")) == {("S", 1, 0)}
    assert "is dead" not in observer.output()
    assert not judge([task.id for task in tasks]).broken


def test_f7_a_call_that_holds_the_interpreter_past_the_lease(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    stuck = worker_process("--no-scheduler", cq=SETTINGS)
    task = trouble.hold_the_interpreter.delay(6)
    wait_until(lambda: running() == 1)
    before = Worker.objects.get(pid=stuck.pid, alive=True).id
    observer = worker_process("--no-scheduler", cq=SETTINGS)
    wait_until(lambda: "is dead" in observer.output(), timeout=20)
    wait_for(task, Status.SUCCESS, timeout=40)
    assert (task.attempts, task.crashes) == (2, 1)
    wait_until(lambda: Worker.objects.filter(pid=stuck.pid, alive=True).exists(), timeout=20)
    assert Worker.objects.get(pid=stuck.pid, alive=True).id != before
    assert Effect.objects.filter(task=task.id).count() == 1
    assert observer.stop() == stuck.stop() == 0


def test_f11_a_worker_without_free_file_descriptors_recovers(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", cq=SETTINGS)
    noop.delay().wait(10)
    none_left = len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))
    had = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (none_left, had[1]))
    # New threads want sessions of their own, and get none.
    tasks = [kinds.sync_one.delay() for _ in range(20)]
    wait_until(lambda: "Too many open files" in worker.output(), timeout=20)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, had)
    wait_until(is_over, timeout=60)
    assert not (verdict := judge([task.id for task in tasks])).broken, verdict
    assert where.delay().wait(10) == worker.pid
    assert worker.stop() == 0


# --- Redis --------------------------------------------------------------------------------------


def _evict(client: Any, policy: str) -> bool:
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", 1)
    return client.config_get("maxmemory")["maxmemory"] == "1"


def _lock_out(client: Any) -> bool:
    client.config_set("requirepass", "changed")
    return bool(client.client_kill_filter(_type="normal", skipme=True))


def _refuse_commands(client: Any) -> bool:
    """What `rename-command` does to everybody: the commands of a queue are not there."""
    client.execute_command("ACL", "SETUSER", "default", "-bzpopmin", "-zadd", "-evalsha", "-eval")
    return "-bzpopmin" in str(client.execute_command("ACL", "LIST"))


STORMS: dict[str, Callable[[Any], object]] = {
    "F15 emptied": lambda client: client.flushall(),
    "F16 clients killed": lambda client: client.client_kill_filter(_type="normal", skipme=True),
    "F17 everything evicted": lambda client: _evict(client, "allkeys-lru"),
    "F17 full": lambda client: _evict(client, "noeviction"),
    "F20 password changed": _lock_out,
    "F20 commands renamed": _refuse_commands,
    "F14 paused": lambda client: client.execute_command("CLIENT", "PAUSE", 1500),
}
LINKS: dict[str, Callable[[Link], object]] = {
    "F21 200 ms late": lambda link: link.delay(0.2),
    "F21 resets": lambda link: link.reset(),
    "F21 black hole": lambda link: link.stall(),
    "F21 trickle": lambda link: link.trickle(0.001),
    "F21 refused": lambda link: link.refuse(),
    "F21 cut in mid-message": lambda link: link.cut_after(100),
}


def test_f14_to_f21_whatever_happens_to_redis_costs_time_only(
    worker_process: WorkerFactory, wait_until: WaitUntil, use_layers: Any, own_redis: Server
) -> None:
    use_layers("redis")
    link = Link.to(own_redis.url)
    worker = worker_process(
        *("--no-scheduler", "-c", "20"),
        cq=SETTINGS,
        env={"CQ_TEST_REDIS_URL": link.through(own_redis.url)},
    )
    client = redis.Redis.from_url(own_redis.url)

    def storm(name: str, blow: Callable[[], object]) -> None:
        bit, tasks, took = 0, [], []
        end = time.monotonic() + 1.5
        # Whoever rests after the storm before is not hit until it tries again.
        while (now := time.monotonic()) < end or (not bit and now < end + 5):
            bit += bool(blow())
            began = time.perf_counter()
            tasks.append(noop.delay())
            took.append(time.perf_counter() - began)
            wait_until(lambda began=began: time.perf_counter() - began > 0.1)
        assert statistics.median(took) < 0.05, name
        for task in tasks:
            assert wait_for(task, Status.SUCCESS, timeout=20).attempts == 1, name
        assert bit, name

    def heal() -> None:
        link.heal()
        client.config_set("requirepass", "")
        client.execute_command("ACL", "SETUSER", "default", "+@all")
        client.config_set("maxmemory", 0)

    for name, blow in STORMS.items():
        storm(name, lambda blow=blow: blow(client))
        heal()
    for name, spoil in LINKS.items():
        wait_until(lambda: link.open, timeout=20)
        before = link.bites.total()
        spoil(link)
        storm(name, lambda before=before: link.bites.total() > before)
        heal()
    for _ in range(3):
        noop.delay().wait(10)
    assert worker.stop() == 0
    assert "ERROR cq." not in worker.output()
    # What is said names the cause.
    assert "failed with AuthenticationError" in worker.output()
    assert "failed with NoPermissionError" in worker.output()
    client.close()
    link.close()


def test_f18_a_layer_of_ten_messages_that_forgets_them_within_a_second(
    worker_process: WorkerFactory, wait_until: WaitUntil, use_layers: Any, settings: Any
) -> None:
    use_layers("redis")
    config = settings.CHANNEL_LAYERS["cq"]["CONFIG"]
    config |= {"capacity": 10, "expiry": 1}
    tasks = [kinds.atomic_one.delay() for _ in range(300)]
    worker = worker_process("--no-scheduler", cq=SETTINGS)
    wait_until(is_over, timeout=60)
    assert not (verdict := judge([task.id for task in tasks])).broken, verdict
    assert worker.stop() == 0


def test_f19_a_thousand_copies_of_a_bell_and_bells_of_nothing(
    worker_process: WorkerFactory, wait_until: WaitUntil, use_layers: Any
) -> None:
    use_layers("redis")
    tasks = [kinds.sync_one.delay(), kinds.dozing.delay(1.0)]
    worker = worker_process("--no-scheduler", cq=SETTINGS)

    async def ring() -> None:
        layer = make_layer("cq")
        ids = [task.id.hex for task in tasks]
        for number in range(1000):
            message = run_message([*ids, "f" * 32]) if number % 10 else {"type": "os.system"}
            await layer.send(channel_name("default"), message)
        await layer.close_pools()  # type: ignore[attr-defined]

    asyncio.run(ring())
    wait_until(is_over, timeout=20)
    assert noop.delay().wait(10) is None
    assert set(Task.objects.values_list("attempts", flat=True)) == {1}
    assert Effect.objects.count() == 2
    assert worker.stop() == 0


# --- PostgreSQL ---------------------------------------------------------------------------------


def test_f27_the_shortest_of_time_limits(
    worker_process: WorkerFactory, wait_until: WaitUntil, alter: Any
) -> None:
    for limit in ("statement_timeout = '200ms'", "lock_timeout = '50ms'"):
        alter(limit)
    alter("idle_in_transaction_session_timeout = '1s'")
    worker = worker_process("--no-scheduler", cq=SETTINGS)
    ids = [id for _ in range(3) for id in one_of_each()]
    slow = trouble.query_for.delay(1.0)
    idle = kinds.dozing_atomic.delay(1.5)
    wait_for(slow, Status.FAILURE, timeout=30)
    assert "statement timeout" in slow.error
    wait_until(lambda: Task.objects.get(id=idle.id).attempts > 1, timeout=30)
    idle.revoke()
    wait_until(is_over, timeout=60)
    Task.objects.filter(id__in=[slow.id, idle.id]).delete()
    assert not (verdict := judge(ids)).broken, verdict
    assert worker.stop() == 0


def test_f28_no_connection_left_for_a_worker(
    worker_process: WorkerFactory, wait_until: WaitUntil, database: Database
) -> None:
    worker = worker_process("--no-scheduler", "--threads", "4", cq=SETTINGS)
    with ExitStack() as stack:

        def take_all() -> None:
            for _ in range(300):
                stack.enter_context(psycopg.connect(database.url))

        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            take_all()
        ids = [id for _ in range(3) for id in one_of_each()]
        wait_until(lambda: "too many clients" in worker.output(), timeout=30)
    wait_until(is_over, timeout=60)
    assert worker.is_running
    assert not (verdict := judge(ids)).broken, verdict
    assert worker.stop() == 0


@contextmanager
def read_only() -> Iterator[None]:
    """What a server does in the middle of a failover."""

    def switch(value: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            cursor.execute("SELECT pg_reload_conf()")

    switch("on")
    try:
        yield
    finally:
        direct(lambda: switch("off"))


def test_f30_a_database_that_takes_no_writes_for_a_while(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", cq=SETTINGS)
    ids = [id for _ in range(3) for id in one_of_each()]
    dozing = kinds.dozing.delay(1.0)
    wait_until(lambda: Task.objects.filter(id=dozing.id, status=Status.RUNNING).exists())
    with read_only():
        wait_until(lambda: "read-only transaction" in worker.output(), timeout=20)
        late = worker_process("--no-scheduler", cq=SETTINGS, ready=False)
        wait_until(lambda: "Waiting for the database" in late.output(), timeout=20)
        began = time.monotonic()
        # Longer than a lease: nobody can beat, and nobody is declared dead.
        wait_until(lambda: time.monotonic() - began > 3)
    wait_until(is_over, timeout=60)
    dozing.refresh_from_db()
    assert (dozing.status, dozing.crashes) == (Status.SUCCESS, 0)
    assert not (verdict := judge([*ids, dozing.id])).broken, verdict
    wait_until(late.rows, timeout=20)
    assert worker.stop() == late.stop() == 0
    assert "declared dead" not in worker.output()
    assert "Exception Group" not in late.output()


@pytest.mark.parametrize("direction", ["both", "answers"])
@pytest.mark.parametrize("is_long", [False, True], ids=["within the lease", "past the lease"])
def test_f35_a_worker_that_is_cut_off(
    worker_process: WorkerFactory,
    wait_until: WaitUntil,
    database: Database,
    is_long: bool,
    direction: str,
    tmp_path: Path,
) -> None:
    settings, end = SETTINGS | {"LEASE": 2.0 if is_long else 6.0}, tmp_path / "end"
    link = Link.to(database.url)
    far = worker_process(
        "--no-scheduler", cq=settings, env={"CQ_TEST_DATABASE_URL": link.through(database.url)}
    )
    tasks = [body.delay(str(end)) for body in LINGERING for _ in range(4)]
    wait_until(lambda: running() == 8)
    observer = worker_process("--no-scheduler", cq=settings)
    if direction == "both":
        link.stall()
    else:
        link.hold_answers()
    began = time.monotonic()
    if is_long:
        wait_until(lambda: "is dead" in observer.output(), timeout=20)
        end.touch()
        wait_until(is_over, timeout=40)
    else:
        wait_until(lambda: time.monotonic() - began > 2)
        assert running() == 8
        end.touch()
    link.heal()
    assert link.bites["held"]
    wait_until(is_over, timeout=40)
    verdict = judge([task.id for task in tasks])
    assert not verdict.broken, verdict
    assert verdict.recovered == (8 if is_long else 0)
    wait_until(lambda: Worker.objects.filter(pid=far.pid, alive=True).exists(), timeout=20)
    assert observer.stop() == 0
    assert where.delay().wait(20) == far.pid
    assert far.stop() == 0
    link.close()

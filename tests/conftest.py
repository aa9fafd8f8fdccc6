"""
What every test may ask for: private servers, the database, the layers, real workers, events.

`database` empties the tables afterwards and commits for real; `use_layers` names the channel
layers; `worker_process` starts `manage.py cq_runworker` on the same database and layers, and
ends it. `wait_until` is the one place that looks again: tests wait for events, never for time.
Servers start when a test first needs one, so that unit tests touch none.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from blockbuster import blockbuster_ctx
from django.db import connections, transaction
from django.test.utils import setup_databases, teardown_databases

from cq.workflow.checker import PROMPT, check
from tests.services import Server, start
from tests.settings import DATABASE_KIND, DATABASE_URL, REDIS_URL, channel_layers_for, database_from
from tests.waiting import await_until, wait_until
from tests.workers import WorkerFactory, WorkerProcess

WORKERS = pytest.StashKey[list[WorkerProcess]]()


def pytest_configure() -> None:
    """Hand on a Ctrl-C that works: a shell starts what runs in its background deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# --- servers ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL of this run alone: a fault test may kill and resume it."""
    server = start("postgres")
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A Redis of this run alone: a fault test may kill and resume it."""
    server = start("redis")
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The PostgreSQL of CQ_TEST_DATABASE_URL, else a private one."""
    if DATABASE_URL.startswith("postgres"):
        return DATABASE_URL
    server: Server = request.getfixturevalue("postgres_server")
    return server.url


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The Redis of CQ_TEST_REDIS_URL, else a private one."""
    if REDIS_URL:
        return REDIS_URL
    server: Server = request.getfixturevalue("redis_server")
    return server.url


# --- the database -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Point Django at the database of this run, just before it is made."""
    request.getfixturevalue("django_db_modify_db_settings_parallel_suffix")
    entry = connections.settings["default"]
    if DATABASE_KIND == "sqlite":
        entry["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "cq.sqlite3")
    elif not DATABASE_URL:
        entry.update(database_from(request.getfixturevalue("postgres_url")) | {"NAME": "cq"})


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: Any, django_db_modify_db_settings: None
) -> Iterator[None]:
    """Make the test database; drop it only where the server is yours and stays."""
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases={"default"})
    yield
    if DATABASE_URL:
        with django_db_blocker.unblock():
            teardown_databases(made, verbosity=0)


@dataclass(frozen=True, slots=True)
class Database:
    """The database of the test: its vendor, and the address that another process needs."""

    vendor: str
    url: str


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[Database]:
    """
    The configured database, with real commits, emptied afterwards.

    Quicker than pytest-django's `transactional_db`, which re-creates permissions and content
    types after each test; seen by other threads and processes, which `db` is not.
    """
    with django_db_blocker.unblock():
        connections.close_all()
        try:
            yield _describe_database()
            if not connections["default"].is_usable():  # a fault test ended the server
                connections["default"].close()
            _empty_tables()
        finally:
            connections.close_all()


def _describe_database() -> Database:
    entry = connections["default"].settings_dict
    if DATABASE_KIND == "sqlite":
        return Database("sqlite", f"sqlite:///{entry['NAME']}")
    user = f"{entry['USER']}:{entry['PASSWORD']}" if entry["PASSWORD"] else entry["USER"]
    return Database(
        "postgresql", f"postgresql://{user}@{entry['HOST']}:{entry['PORT']}/{entry['NAME']}"
    )


def _empty_tables() -> None:
    connection = connections["default"]
    kept = {"django_migrations", "django_content_type", "auth_permission"}
    tables = [
        name
        for name in connection.introspection.django_table_names(only_existing=True)
        if name not in kept
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # A body left open by a test holds its tables: say so instead of hanging.
            cursor.execute("SET LOCAL lock_timeout = '10s'")
            cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
        else:
            for name in tables:
                cursor.execute(f"DELETE FROM {name}")


@pytest.fixture(autouse=True)
def rows_agree(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the checker find nothing after a test of the engine or of a worker (5 to 15 ms)."""
    by_engine = "conformance" in request.path.parts or "worker_process" in request.fixturenames
    if not by_engine or "database" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("database")
    yield
    if not request.node.get_closest_marker("contradictory"):
        if not connections["default"].is_usable():  # a fault test ended the server
            connections["default"].close()
        assert list(check(PROMPT, instant=0).found) == []


# --- layers and workers -------------------------------------------------------------------------


class Layers:
    """`use_layers("redis" | "stock" | "memory" | "none")`: names the channel layers of a test."""

    def __init__(self, settings: Any, redis_url: Callable[[], str]) -> None:
        self._settings, self._redis_url = settings, redis_url
        self.kind: str | None = None
        self.url = ""

    def __call__(self, kind: str) -> None:
        if kind in ("redis", "stock"):
            self.url = self._redis_url()
            with redis.Redis.from_url(self.url) as client:
                client.flushdb()
        self._settings.CHANNEL_LAYERS = channel_layers_for(kind, self.url)
        self.kind = kind

    def environment(self) -> dict[str, str]:
        """What a process needs to name the same layers."""
        return {"CQ_TEST_LAYER": self.kind or "memory", "CQ_TEST_REDIS_URL": self.url}


@pytest.fixture
def use_layers(settings: Any, request: pytest.FixtureRequest) -> Layers:
    """Name the channel layers of this test; a Redis is started, and emptied, when they need one."""
    return Layers(settings, lambda: str(request.getfixturevalue("redis_url")))


@pytest.fixture
def worker_process(
    database: Database, use_layers: Layers, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[WorkerFactory]:
    """
    Start real workers: `worker_process("-c", "4", cq={"POLL": 60}, env={})` returns once it runs.

    They use the layers of the test: RedisLayer, unless `use_layers` was called before. All that
    still run are ended by pid afterwards; a failed test shows what they printed.
    """
    if use_layers.kind is None:
        use_layers("redis")
    factory = WorkerFactory(
        environment={"CQ_TEST_DB": DATABASE_KIND, "CQ_TEST_DATABASE_URL": database.url},
        layer_environment=use_layers.environment,
        directory=tmp_path,
    )
    request.node.stash[WORKERS] = factory.started
    yield factory
    factory.stop_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the workers printed beside the failure they may explain."""
    report = yield
    if report.failed:
        for worker in item.stash.get(WORKERS, []):
            report.sections.append((f"process {worker.pid}", worker.output()))
    return report


# --- waiting, and the loop ----------------------------------------------------------------------


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Any]:
    """`wait_until(predicate, timeout=10)`: the first truthy value, or a failure that names it."""
    return wait_until


@pytest.fixture(name="await_until")
def _await_until() -> Callable[..., Any]:
    """`await await_until(predicate, timeout=10)`: the same on a loop."""
    return await_until


@pytest.fixture(autouse=True)
def loop_is_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test in which cq blocks the event loop."""
    function = getattr(request, "function", None)
    if not inspect.iscoroutinefunction(function):
        yield
        return
    with blockbuster_ctx(scanned_modules=["cq"]) as blocking:
        for guard in blocking.functions.values():
            # redis-py reads its own version from disk at every connect.
            guard.can_block_in("redis/utils.py", "get_lib_version")
            # The dispatcher's loop lives on a thread of its own, where nobody waits.
            guard.can_block_in("cq/transport/sender_thread.py", "_main")
        yield

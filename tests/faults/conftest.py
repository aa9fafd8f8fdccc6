"""
What fault tests add: a Redis and a PostgreSQL that they may kill, away from everybody else's.

The servers of the run stay whole; `own_redis` replaces the Redis of the layers for the
tests that ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from tests.conftest import Database, Layers
from tests.services import Server, start
from tests.settings import database_from


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A Redis for one test, to be killed and resumed."""
    server = start("redis")
    yield server
    server.close()


@pytest.fixture
def use_layers(settings: Any, request: pytest.FixtureRequest) -> Layers:
    """The layers of the suite, on the test's own Redis if it has one."""
    own = "own_redis" in request.fixturenames

    def url() -> str:
        if own:
            server: Server = request.getfixturevalue("own_redis")
            return server.url
        return str(request.getfixturevalue("redis_url"))

    return Layers(settings, url)


@contextmanager
def pointed_at(url: str) -> Iterator[Database]:
    """Let this process use another PostgreSQL, newly migrated, while the block runs."""
    entry = connections.settings["default"]
    before = dict(entry)
    connections.close_all()
    entry.update(database_from(url))
    try:
        call_command("migrate", verbosity=0)
        yield Database("postgresql", url)
    finally:
        connections.close_all()
        entry.update(before)

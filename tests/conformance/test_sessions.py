"""The sessions of the engine's own threads: prepared where a session may be, and not elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from cq.aio import Threads
from cq.models.sessions import own_sessions
from tests.conformance.driving import Hand, S, on_postgres
from tests.sampleapp.tasks import noop

pytestmark = on_postgres


@pytest.fixture
def lane(database: object) -> Iterator[Threads]:
    lane = Threads(1, "cq-test", own_sessions)
    yield lane
    lane.shutdown()


def prepared() -> int:
    """How many of cq's statements the session of this thread has prepared."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%cq_%'")
        return int(cursor.fetchone()[0])


def shown(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def run_one() -> object:
    task = noop.delay()
    return Hand().run(task)


def test_the_engine_prepares_its_statements(lane: Threads) -> None:
    assert lane.submit(run_one).result(20) is S
    assert lane.submit(prepared).result(5) >= 3
    assert lane.submit(shown, "jit").result(5) == "off"
    assert shown("jit") == "on"


def test_options_of_the_project_are_kept(lane: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    options = connection.settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "options", "-c work_mem=12345kB")
    assert lane.submit(shown, "work_mem").result(5) == "12345kB"
    assert lane.submit(shown, "jit").result(5) == "off"


def test_a_pooler_that_shares_sessions_is_left_no_state(
    lane: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(connection.settings_dict["OPTIONS"], "prepare_threshold", raising=False)
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    assert lane.submit(run_one).result(20) is S
    assert lane.submit(prepared).result(5) == 0
    assert lane.submit(shown, "jit").result(5) == "on"

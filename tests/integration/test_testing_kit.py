"""`cq.testing` in every kind of test, on every database, leaving nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from cq.definition.status import Status
from cq.models import Task
from cq.testing import drain, wait_for
from tests.integration import kit_cases
from tests.sampleapp.tasks import add, add_async, echo, noop
from tests.workers import ROOT, WorkerFactory


class TestInTestCase(kit_cases.InTestCase):
    """On the database of the run."""


class TestInTransactionTestCase(kit_cases.InTransactionTestCase):
    """On the database of the run."""


def test_under_djangos_own_runner_in_memory() -> None:
    """Django's default for SQLite: one connection, in memory."""
    environment = {**os.environ, "CQ_TEST_DB": "sqlite", "CQ_TEST_DATABASE_URL": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "tests/manage.py", "test", "tests.integration.kit_cases"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


@pytest.mark.django_db
def test_with_the_mark_of_pytest_django() -> None:
    row = add.delay(1, 2)
    assert [ran.result for ran in drain()] == [3]
    row.refresh_from_db()
    assert row.status == Status.SUCCESS


@pytest.mark.django_db
def test_nothing_was_left_by_the_test_before() -> None:
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_with_real_commits() -> None:
    before = set(threading.enumerate())
    rows = [add.delay(1, 2), add_async.delay(1, 2)]
    drain()
    assert [row.wait(0) for row in rows] == [3, 3]
    assert set(threading.enumerate()) == before


def test_a_drain_has_an_end(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cq.testing._MAX_TASKS", 3)
    for _ in range(5):
        noop.delay()
    with pytest.raises(RuntimeError, match=r"drain.. ran 3 tasks and there is still more"):
        drain()
    assert not Task.objects.filter(worker__isnull=False).exclude(status="R").exists()


@pytest.mark.long
def test_wait_for_beside_a_real_worker(database: Any, worker_process: WorkerFactory) -> None:
    worker_process("-c", "2")
    row = echo.delay("hello")
    assert wait_for(row, Status.SUCCESS, timeout=20).result["args"] == ["hello"]

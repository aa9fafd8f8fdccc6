"""What the 2019 package did at its start and called its fields, where nothing else proves it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from cq.definition.status import Status
from cq.models import Task
from cq.testing import drain
from tests.sampleapp.tasks import add, echo, fail, noop
from tests.workers import ROOT, WorkerFactory

HISTORIC_FIELDS = {
    "id": "id",
    "status": "status",
    "signature.func_name": "func_name",
    "signature.args": "args",
    "signature.kwargs": "kwargs",
    "details.result": "result",
    "details.error": "error",
    "details.exception": "errors",
    "details.traceback": "errors",
    "details.logs": "logs",
    "details.errbacks": "errorbacks",
    "parent": "parent",
    "previous": "previous",
    "waiting_on": "waiting_on",
    "submitted": "submitted",
    "started": "started",
    "finished": "finished",
    "result_ttl": "result_ttl",
    "result_expiry": "result_expiry",
    "retries": "retries",
    "last_retry": "run_at",
    "force_chain": "force_chain",
}
"""Each field of 2019 but `at_risk`, which nothing ever set, and where it is now."""


@pytest.mark.parametrize(("was", "name"), HISTORIC_FIELDS.items(), ids=HISTORIC_FIELDS)
def test_each_field_of_2019_has_its_place(database: Any, was: str, name: str) -> None:
    row = fail.using(retries=1, result_ttl=60).delay("no")
    row.errorback(_told)
    drain(now=timedelta(hours=1))
    row.refresh_from_db()
    if name not in ("parent", "previous", "waiting_on", "result", "force_chain"):
        assert getattr(row, name) not in (None, [], {}, "") or name in ("kwargs", "logs")
    assert hasattr(row, name)


def _told(row: Task, error: str) -> None: ...


def test_the_statuses_keep_their_letters_and_names() -> None:
    letters = {"PENDING": "P", "RETRY": "Y", "QUEUED": "Q", "RUNNING": "R", "FAILURE": "F"}
    letters |= {"SUCCESS": "S", "WAITING": "W", "INCOMPLETE": "I", "LOST": "L", "REVOKED": "E"}
    assert {name: getattr(Task, f"STATUS_{name}") for name in letters} == letters
    assert set("FSILE") == Task.STATUS_DONE
    assert set("FILE") == Task.STATUS_ERROR
    assert set("PQRWY") == Task.STATUS_ACTIVE
    assert Task.STATUS_COMPLETE == Task.STATUS_SUCCESS
    assert dict(Task.STATUS_CHOICES)["I"] == "Incomplete"


def test_the_start_of_the_app_finds_tasks_and_touches_no_database() -> None:
    script = (
        "from cq.definition import registry; print('tests.sampleapp.tasks.add' in registry.names())"
    )
    # Nobody listens at this address: a query would fail.
    nowhere = {"CQ_TEST_DATABASE_URL": "postgresql://cq@127.0.0.1:1/cq"}
    done = subprocess.run(
        [sys.executable, "tests/manage.py", "shell", "-v", "0", "-c", script],
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr


@pytest.mark.long
def test_a_worker_that_starts_leaves_waiting_rows_alone(
    database: Any, worker_process: WorkerFactory
) -> None:
    later = noop.using(run_after=3600).delay()
    held = add.delay_args((1,), submit=False)
    foreign = Task.objects.create(func_name="nobody.registers.this")
    due = echo.delay("due")
    done = worker_process.manage("cq_runworker", "--burst")
    assert done.process.wait(30) == 0, done.output()
    statuses = {row.id: (row.status, row.attempts) for row in Task.objects.all()}
    assert statuses == {
        later.id: (Status.QUEUED, 0),
        held.id: (Status.PENDING, 0),
        foreign.id: (Status.QUEUED, 0),
        due.id: (Status.SUCCESS, 1),
    }

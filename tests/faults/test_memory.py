"""
What a worker takes of memory: nothing for a backlog, and a bounded share for a flood of lines.

The figures are the resident sizes that the system tells of a worker process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from cq.definition.status import Status
from cq.models import LogLine, Task
from cq.testing import wait_for
from tests.conftest import Database
from tests.faults import vitals
from tests.faults.links import Link
from tests.sampleapp import trouble
from tests.sampleapp.tasks import noop
from tests.settings import DATABASE_KIND
from tests.waiting import wait_until
from tests.workers import WorkerFactory, WorkerProcess

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
    pytest.mark.skipif(DATABASE_KIND != "postgres", reason="the rows are made by PostgreSQL"),
]
SETTINGS = {"TASK_MODULES": [trouble.MODULE], "LEASE": 2.0, "HEARTBEAT": 0.3, "POLL": 0.5}
MILLION = 1_000_000


def resident(worker: WorkerProcess) -> float:
    """MiB of a worker process."""
    return vitals.of_process(worker.pid)["MiB"]


def fill(count: int) -> None:
    """Queue so many copies of one task, as plain SQL may."""
    row = noop.delay()
    names = [field.column for field in Task._meta.concrete_fields]
    columns = ", ".join(f'"{name}"' for name in names if name not in ("id", "root_id"))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO cq_task (id, root_id, {columns}) "
            f"SELECT new, new, {columns} FROM cq_task, "
            "LATERAL (SELECT gen_random_uuid() AS new FROM generate_series(2, %s)) AS news "
            "WHERE cq_task.id = %s",
            [count, row.id],
        )
        cursor.execute("ANALYZE cq_task")


def test_p28_memory_does_not_depend_on_the_backlog(
    worker_process: WorkerFactory, database: Database
) -> None:
    sizes = {}
    for backlog in (2000, MILLION):
        fill(backlog)
        ended = Task.objects.filter(status=Status.SUCCESS)
        worker = worker_process("--no-scheduler")
        wait_until(lambda ended=ended: ended.count() >= 1500, timeout=60)
        sizes[backlog] = resident(worker)
        if backlog == MILLION:
            assert Task.objects.filter(status=Status.QUEUED).count() > MILLION / 2
        assert worker.stop() == 0
        assert not Task.objects.filter(status=Status.RUNNING).exists()
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE cq_task CASCADE")
    print(f"\nMiB of a worker by backlog: {sizes}")  # noqa: T201
    assert abs(sizes[MILLION] - sizes[2000]) < 20


def test_f39_a_million_lines_while_the_database_is_silent(
    worker_process: WorkerFactory, database: Database, tmp_path: Path
) -> None:
    link, start = Link.to(database.url), tmp_path / "start"
    env = {"CQ_TEST_DATABASE_URL": link.through(database.url)}
    worker = worker_process("--no-scheduler", cq=SETTINGS, env=env)
    task = trouble.flood.delay(str(start), MILLION)
    wait_until(lambda: Task.objects.get(id=task.id).status == Status.RUNNING)
    at_rest = resident(worker)
    link.stall()
    start.touch()
    most = at_rest

    def has_spoken() -> bool:
        nonlocal most
        most = max(most, resident(worker))
        return Path(f"{start}-done").exists()

    wait_until(has_spoken, timeout=120)
    assert link.bites["held"]
    link.heal()
    wait_for(task, Status.SUCCESS, timeout=120)
    most = max(most, resident(worker))
    lines = LogLine.objects.filter(root=task.id)
    print(f"\n{at_rest:.0f} MiB at rest, {most:.0f} MiB at most; {lines.count()} lines")  # noqa: T201
    assert task.attempts == 1
    assert task.result == MILLION
    assert most - at_rest < 200
    last = lines.order_by("-seq")[0]
    assert "CQ['MAX_LINES']" in last.message
    assert lines.count() == 100_001
    assert lines.order_by("seq")[0].message.count("x") <= 8192
    assert worker.stop() == 0
    link.close()

"""The historic commands and the built-in tasks: what they print, touch and refuse."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from cq import task, tasks
from cq.definition.ids import uuid7
from cq.definition.status import Status
from cq.errors import CommandNotAllowed
from cq.models import LogLine, RepeatingTask, Task, Worker
from cq.testing import drain
from cq.worker.process_identity import this_process
from tests.sampleapp.tasks import echo, fail, noop
from tests.workers import WorkerFactory

pytestmark = pytest.mark.usefixtures("database")


@task(atomic=False)
def noop_and_fail(cqt: Any) -> None:
    cqt.subtask(noop)
    cqt.subtask(fail)


def run(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out, **options)
    return out.getvalue()


def ended(status: Status, **changes: Any) -> Task:
    now = timezone.now()
    kept = {"result_expiry": now + timedelta(days=9)}
    return Task.objects.create(
        **{"func_name": echo.name, "status": status, "finished": now, **kept, **changes}
    )


def dead_process() -> int:
    """The pid of a process that is no more."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def running_on(worker: Worker, **changes: Any) -> Task:
    return Task.objects.create(
        func_name=echo.name,
        status=Status.RUNNING,
        claim_token=uuid4(),
        worker=worker,
        attempts=1,
        **changes,
    )


# --- cq_maintenance -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "gone"),
    [
        ("--clear", {Status.SUCCESS}),
        ("--failed", {Status.FAILURE, Status.INCOMPLETE, Status.REVOKED}),
        ("--lost", {Status.LOST}),
    ],
)
def test_maintenance_deletes_by_state(flag: str, gone: set[Status]) -> None:
    kept = {Status.SUCCESS, Status.FAILURE, Status.INCOMPLETE, Status.LOST, Status.REVOKED}
    for status in kept:
        ended(status)
    Task.objects.create(func_name=echo.name)
    assert f"{len(gone)} trees would be deleted" in run("cq_maintenance", flag, "--dry-run")
    assert Task.objects.count() == 6
    assert f"{len(gone)} rows deleted" in run("cq_maintenance", flag)
    left = set(Task.objects.values_list("status", flat=True))
    assert left == {status.value for status in kept - gone} | {"Q"}


def test_maintenance_spares_what_is_younger() -> None:
    ended(Status.SUCCESS, submitted=timezone.now() - timedelta(days=3))
    ended(Status.SUCCESS)
    assert "1 rows deleted" in run("cq_maintenance", "--clear", "--prior", "2")
    assert Task.objects.count() == 1


def test_maintenance_revokes_what_has_not_started() -> None:
    waiting = noop.delay()
    noop.delay_args([], {}, submit=False)
    running = running_on(Worker.objects.create())
    assert "2 tasks would be revoked" in run("cq_maintenance", "--pending", "--dry-run")
    text = run("cq_maintenance", "--pending")
    assert "2 tasks revoked" in text
    assert "2 rows deleted" in text
    assert not Task.objects.filter(pk=waiting.pk).exists()
    assert Task.objects.get().pk == running.pk


def test_maintenance_without_a_flag_enqueues_the_task() -> None:
    assert "would be enqueued" in run("cq_maintenance", "--dry-run")
    assert not Task.objects.exists()
    assert "Enqueued" in run("cq_maintenance")
    assert Task.objects.get().func_name == "cq.tasks.maintenance"


@pytest.mark.parametrize("prior", ["-1", "nan", "1e9"])
def test_maintenance_refuses_an_odd_age(prior: str) -> None:
    with pytest.raises(CommandError, match="age in days"):
        run("cq_maintenance", "--clear", f"--prior={prior}")


# --- cq_retry, cq_clear_logs, cq_check_lost -----------------------------------------------------


def test_retry_queues_ended_tasks_and_says_what_it_could_not() -> None:
    failed, success = ended(Status.FAILURE), ended(Status.SUCCESS)
    assert "Queued" in run("cq_retry", str(failed.pk))
    failed.refresh_from_db()
    assert failed.status == Status.QUEUED
    with pytest.raises(CommandError, match="2 of 2"):
        run("cq_retry", str(success.pk), str(uuid7()))


def test_retry_takes_ids_as_one_types_them() -> None:
    failed = ended(Status.FAILURE)
    assert f"Queued {failed.pk} again" in run("cq_retry", failed.pk.hex.upper()[:30])
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1"):
        call_command("cq_retry", "nope", stderr=out)
    assert "'nope' is not the id of a task. Expected up to 32 hexadecimal signs" in out.getvalue()


def test_retry_of_what_failed_only() -> None:
    root, single = noop_and_fail.delay(), ended(Status.FAILURE)
    drain()
    done, failed = Task.objects.filter(parent=root).order_by("id")
    assert "what failed below" in run("cq_retry", "--failed-only", str(root.pk))
    assert Task.objects.get(pk=root.pk).status == Status.WAITING
    assert Task.objects.get(pk=failed.pk).status == Status.QUEUED
    assert Task.objects.get(pk=done.pk).status == Status.SUCCESS
    with pytest.raises(CommandError, match="1 of 1"):
        run("cq_retry", "--failed-only", str(single.pk))
    with pytest.raises(CommandError, match=r"got no id\. Expected"):
        run("cq_retry", "--failed-only")


def test_retry_without_ids_rings_for_what_is_due() -> None:
    noop.delay()
    noop.using(run_after=3600).delay()
    assert "Rang for 1 due" in run("cq_retry")


def test_clear_logs_deletes_lines_without_a_task() -> None:
    for n in range(3):
        LogLine.objects.create(root=uuid7(), seq=1, task=uuid7(), func_name="x", message=str(n))
    assert "3 rows deleted" in run("cq_clear_logs")


def test_check_lost_frees_what_a_dead_process_held() -> None:
    me = this_process()
    identity = {
        "hostname": me.hostname,
        "host_id": me.host_id,
        "boot_id": me.boot_id,
        "pid_namespace": me.pid_namespace,
    }
    dead = Worker.objects.create(pid=dead_process(), **identity)
    alive = Worker.objects.create(pid=me.pid, pid_started=me.pid_started, **identity)
    again, lost = running_on(dead), running_on(dead, at_most_once=True)
    kept = running_on(alive)
    text = run("cq_check_lost")
    assert f"Worker {dead} is dead" in text
    assert "1 live workers, 2 tasks rescued, 1 of them Lost" in text
    statuses = {task.pk: task.status for task in Task.objects.all()}
    assert statuses == {again.pk: "Q", lost.pk: "L", kept.pk: "R"}
    assert "0 tasks rescued" in run("cq_check_lost")


# --- cq_schedule --------------------------------------------------------------------------------


def test_schedule_lists_runs_and_switches() -> None:
    entry = RepeatingTask.objects.create(
        func_name=noop.name, name="nightly", crontab="30 2 * * *", timezone="Europe/Berlin"
    )
    RepeatingTask.objects.create(func_name=echo.name, name="gone", crontab="0 0 1 1 *")
    RepeatingTask.objects.filter(name="gone").update(func_name="shop.tasks.gone")
    text = run("cq_schedule")
    assert "At 02:30; next " in text
    assert "cannot run: No task is registered as 'shop.tasks.gone'" in text
    lines = run("cq_schedule", "next", "-n", "3").splitlines()
    assert len(lines) == 3
    assert all("02:30 CE" in line and "nightly" in line for line in lines)
    assert "runs as task" in run("cq_schedule", "run", "nightly")
    assert "not ended its last run" in run("cq_schedule", "run", "nightly")
    assert "is disabled" in run("cq_schedule", "disable", "nightly")
    entry.refresh_from_db()
    assert not entry.enabled
    assert "disabled" in run("cq_schedule", "list", "nightly")
    assert "is enabled" in run("cq_schedule", "enable", "nightly")


@pytest.mark.parametrize(
    ("arguments", "words"), [(("run",), "needs the name"), (("run", "x"), "no repeating task 'x'")]
)
def test_schedule_names_what_is_missing(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run("cq_schedule", *arguments)


# --- the built-in tasks -------------------------------------------------------------------------


def test_the_built_in_tasks_have_their_historic_names() -> None:
    for name in ("clean_up", "clear_logs", "retry_tasks", "maintenance", "memory_details"):
        assert getattr(tasks, name).name == f"cq.tasks.{name}"
    assert tasks.call_command_task.name == "cq.tasks.call_command_task"


def test_housekeeping_tasks_say_what_they_did() -> None:
    ended(Status.SUCCESS, result_expiry=timezone.now() - timedelta(days=1))
    LogLine.objects.create(root=uuid7(), seq=1, task=uuid7(), func_name="x", message="x")
    noop.delay()
    assert tasks.retry_tasks() == 1
    done = tasks.maintenance()
    assert (done["pruned"], done["orphans"], done["rung"]) == (1, 1, 1)
    assert (tasks.clean_up(), tasks.clear_logs()) == (0, 0)


def test_memory_details_are_json() -> None:
    details = tasks.memory_details()
    assert details["pid"] == os.getpid()
    assert details["peak_rss_bytes"] > 1_000_000
    assert details["objects"] > 1000
    assert details["types"]["function"] > 100


@pytest.mark.parametrize("command", ["flush", "check", "os.system", "../check"])
def test_no_command_runs_unless_the_settings_list_it(command: str, settings: Any) -> None:
    settings.CQ = {"COMMANDS": ["cq_schedule"]}
    with pytest.raises(CommandNotAllowed, match=f"to run '{command}'.*'cq_schedule'"):
        tasks.call_command_task(command)


def test_what_an_allowed_command_prints_is_logged(settings: Any) -> None:
    RepeatingTask.objects.create(func_name=noop.name, name="nightly", crontab="30 2 * * *")
    settings.CQ = {"COMMANDS": ["cq_schedule"], "SERIAL": True}
    task = tasks.call_command_task.delay("cq_schedule", "list")
    assert task.status == Status.SUCCESS
    assert task.format_logs().startswith("nightly\n    At 02:30")


# --- cq_load_test -------------------------------------------------------------------------------


@pytest.mark.long
def test_the_load_test_checks_every_tree(worker_process: WorkerFactory) -> None:
    worker_process()
    text = run("cq_load_test", "--trunks", "10", "--lost", "--timeout", "40")
    assert "Every tree is as it must be" in text
    assert "91 tasks in" in text

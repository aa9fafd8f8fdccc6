"""cq_status and cq_run: what they show, start and refuse, and how they exit."""

from __future__ import annotations

import io
import json
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from cq.models import Task, Worker
from cq.terminal.following import WatchCode
from cq.testing import drain
from tests.sampleapp.tasks import add, doze, echo, noop
from tests.workers import WorkerFactory

pytestmark = pytest.mark.usefixtures("database")


def run(*arguments: str) -> tuple[str, int]:
    out, code = io.StringIO(), 0
    try:
        call_command(*arguments, stdout=out, stderr=io.StringIO())
    except SystemExit as exit:
        code = int(exit.code or 0)
    return out.getvalue(), code


def working(**changes: Any) -> Worker:
    facts = {"names": [noop.name], "hostname": "web-1", "pid": 4711, "slots": 20}
    return Worker.objects.create(**{**facts, **changes})


# --- cq_status ------------------------------------------------------------------------------------


def test_an_empty_project_is_served() -> None:
    said, code = run("cq_status")
    assert code == 0
    assert said.startswith("0 live workers, 0 of 0 slots taken, 0 done and 0 failed a minute.")


def test_due_work_without_a_worker_gives_1() -> None:
    noop.using(queue="mail").delay()
    said, code = run("cq_status")
    assert code == 1
    assert "Queue 'mail' has due tasks and no live worker takes it." in said
    assert "cq_runworker -Q mail" in said
    working()
    assert run("cq_status")[1] == 0


def test_a_worker_of_other_queues_does_not_count() -> None:
    noop.using(queue="mail").delay()
    working(queues=["default", "high"])
    said, code = run("cq_status", "--json")
    assert code == 1
    assert json.loads(said)["unserved"] == ["mail"]


def test_a_worker_without_a_heartbeat_does_not_count() -> None:
    noop.delay()
    working(beat_at=timezone.now() - timedelta(minutes=5))
    said, code = run("cq_status")
    assert code == 1
    assert "SILENT" in said


def test_what_is_due_later_needs_no_worker_yet() -> None:
    noop.using(run_after=timedelta(hours=1)).delay()
    assert run("cq_status")[1] == 0


def test_a_name_that_nobody_knows_gives_1() -> None:
    working()
    Task.objects.create(func_name="shop.tasks.gone", parked=True)
    said, code = run("cq_status")
    assert code == 1
    assert "1 task(s) wait for a worker that knows 'shop.tasks.gone'" in said


def test_what_runs_is_shown_beside_its_worker() -> None:
    worker = working()
    for _ in range(3):
        Task.objects.create(
            func_name=doze.name,
            status="R",
            claim_token=uuid4(),
            worker=worker,
            started=timezone.now() - timedelta(seconds=75),
        )
    said, _ = run("cq_status")
    assert "1 live worker, 3 of 20 slots taken" in said
    assert "web-1:4711" in said
    assert "3/20" in said
    assert "doze ×3 (longest 1:15)" in said


def test_json_holds_what_is_shown() -> None:
    working(hostname="web-\x1b[2J1")
    noop.delay()
    said, _ = run("cq_status", "--json")
    found = json.loads(said)
    assert {"at", "queues", "workers", "parked", "latency", "unserved"} == set(found)
    [queue], [worker] = found["queues"], found["workers"]
    assert (queue["name"], queue["depth"], queue["workers"]) == ("default", 1, 1)
    assert worker["is_live"] is True
    assert "\x1b" not in run("cq_status")[0]


@pytest.mark.parametrize("interval", ["0", "nan", "1e9"])
def test_odd_intervals_are_refused(interval: str) -> None:
    with pytest.raises(CommandError, match="Expected seconds from"):
        run("cq_status", "--interval", interval)


def test_a_watch_looks_again_until_ctrl_c(worker_process: WorkerFactory, wait_until: Any) -> None:
    watcher = worker_process.manage("cq_status", "--watch", "--json", "--interval", "0.1")
    wait_until(lambda: watcher.output().count("\n") >= 3, timeout=20)
    noop.delay()
    wait_until(lambda: '"unserved": ["default"]' in watcher.output(), timeout=10)
    watcher.send(signal.SIGINT)
    assert watcher.process.wait(10) == 1
    assert "Traceback" not in watcher.output()
    assert all(json.loads(line) for line in watcher.output().splitlines())


def test_a_real_worker_and_its_rate_are_shown(
    worker_process: WorkerFactory, wait_until: Any
) -> None:
    worker = worker_process("-c", "7")
    noop.delay()

    def rate() -> float:
        queues = json.loads(run("cq_status", "--json")[0])["queues"]
        return sum(float(queue["done_per_minute"]) for queue in queues)

    wait_until(rate, timeout=20)
    said, code = run("cq_status")
    assert code == 0
    assert f":{worker.pid}" in said
    assert "0/7" in said


# --- cq_run ---------------------------------------------------------------------------------------


def test_run_enqueues_and_prints_the_id() -> None:
    said, code = run("cq_run", add.name, "1", '{"second": 2}', "-Q", "mail", "--priority", "9")
    assert code == 0
    task = Task.objects.get()
    assert said.strip() == str(task.id)
    assert (task.args, task.kwargs, task.queue, task.priority) == ([1], {"second": 2}, "mail", 9)


def test_run_takes_the_end_of_a_name() -> None:
    run("cq_run", "tasks.echo", '"text"', "[1, {}]", "null")
    drain()
    assert Task.objects.get().func_name == echo.name
    assert Task.objects.get().args == ["text", [1, {}], None]


def test_run_reads_what_nobody_shall_see_from_a_file_or_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B52."""
    file = tmp_path / "arguments.json"
    file.write_text('["secret", 1]')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"named": "secret"}'))
    run("cq_run", "tasks.echo", f"@{file}", "-")
    task = Task.objects.get()
    assert (task.args, task.kwargs) == ([["secret", 1]], {"named": "secret"})
    file.write_text('{"password": "secret"')
    for given, sentence in ((f"@{file}", "is not JSON"), (f"@{tmp_path}/no", "cannot be read")):
        with pytest.raises(CommandError, match=sentence) as refused:
            run("cq_run", "tasks.echo", given)
        assert "secret" not in str(refused.value)
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_such_task"], "No task is registered as 'no_such_task'"),
        (["os.system", '"true"'], "No task is registered as 'os.system'"),
        ([add.name, "{not json"], "is not JSON"),
        ([add.name, "[" * 100_000], "is not JSON"),
        ([add.name, '{"third": 3}'], "cannot be called so"),
        ([add.name, "1", "--timeout=nan"], "Expected seconds from 0"),
        ([add.name, "1", "--priority=101"], "101"),
        ([add.name, "1", "-Q", "a b"], "a b"),
    ],
)
def test_run_refuses_with_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError) as refused:
        run("cq_run", *arguments)
    assert sentence in str(refused.value)
    assert not Task.objects.exists()


def test_run_waits_and_prints_the_result_alone(worker_process: WorkerFactory) -> None:
    worker_process("-c", "2", "--grace", "0.1")  # one is left dozing
    said, code = run("cq_run", "add", "40", "2", "--wait", "--timeout", "20")
    assert code == 0
    assert said == "42\n"
    assert run("cq_run", "tasks.fail", "--wait")[1] == WatchCode.FAILURE
    assert run("cq_run", "tasks.doze", "30", "--wait", "--timeout", "0.2")[1] == WatchCode.TIMEOUT

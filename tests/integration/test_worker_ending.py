"""How a worker ends: drained, forced, quiet, at its limits; and what becomes of its tasks."""

from __future__ import annotations

import inspect
import os
import platform
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cq.definition.status import Status
from cq.management.commands.cq_runworker import Command
from cq.models import Task, Worker
from tests.sampleapp import trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import (
    begin_and_end,
    doze,
    doze_sync,
    fan_out,
    fan_out_effects,
    flaky,
    noop,
    noop_atomic,
    write_effect,
    write_effect_async,
    write_effect_then_sleep,
    write_effect_unsafely,
)
from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]

TROUBLE = {"TASK_MODULES": [trouble.MODULE]}
LONG = 60.0


def running(count: int) -> bool:
    return Task.objects.filter(status=Status.RUNNING).count() == count


def start_one_of_each_kind(wait_until: WaitUntil, seconds: float = LONG) -> list[Task]:
    """An async body, a thread, an atomic one that has written, and one in a child process."""
    tasks = [
        doze.delay(seconds),
        begin_and_end.delay(seconds),
        write_effect_then_sleep.delay(seconds),
        trouble.doze_in_a_child.delay(seconds),
    ]
    wait_until(lambda: Effect.objects.filter(kind="begin").count() == 2, timeout=20)
    wait_until(lambda: running(4))
    return tasks


def assert_handed_back(tasks: list[Task]) -> None:
    for task in tasks:
        task.refresh_from_db()
        state = (task.status, task.releases, task.attempts, task.crashes, task.claim_token)
        assert state == (Status.QUEUED, 1, 0, 0, None), task
    assert not Effect.objects.exclude(kind="begin").exists()
    assert not Worker.objects.filter(alive=True).exists()


def assert_ends(worker: WorkerProcess, code: int, within: float) -> None:
    began = time.monotonic()
    assert worker.process.wait(within + 10) == code, worker.output()
    assert time.monotonic() - began < within
    assert "Traceback" not in worker.output()


@pytest.mark.parametrize(
    ("numbers", "code", "within"),
    [
        ([signal.SIGTERM], 0, 6.0),
        ([signal.SIGTERM, signal.SIGINT], 6, 3.5),
        ([signal.SIGQUIT], 6, 3.5),
    ],
    ids=["after the grace", "by a second signal", "at once by QUIT"],
)
def test_what_does_not_end_is_handed_back_uncharged(
    worker_process: WorkerFactory,
    wait_until: WaitUntil,
    numbers: list[signal.Signals],
    code: int,
    within: float,
) -> None:
    grace = "1" if code == 0 else "30"
    worker = worker_process("--no-scheduler", "--grace", grace, cq=TROUBLE)
    tasks = start_one_of_each_kind(wait_until)
    once = trouble.run_once.delay(LONG)
    wait_until(lambda: running(5))
    for number in numbers:
        worker.send(number)
        if number is not numbers[-1]:
            wait_until(lambda: Worker.objects.filter(state="draining").exists())
    assert_ends(worker, code, within)
    assert_handed_back(tasks)
    once.refresh_from_db()
    assert (once.status, once.attempts) == (Status.LOST, 1)


def test_a_drain_under_load_leaves_each_task_done_once_or_untouched(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--no-scheduler", "-c", "20")
    bodies = (write_effect, write_effect_async, write_effect_unsafely, fan_out_effects)
    for body in bodies:
        body.delay_many([((3,) if body is fan_out_effects else (), {})] * 150)
    wait_until(lambda: Task.objects.filter(status=Status.SUCCESS).count() >= 50)
    worker.send(signal.SIGTERM)
    assert_ends(worker, 0, 8)
    states = set(Task.objects.values_list("status", "attempts", "releases", "crashes"))
    untouched, done, waiting = ("Q", 0, 0, 0), ("S", 1, 0, 0), ("W", 1, 0, 0)
    assert untouched in states
    assert states <= {untouched, done, waiting}
    effects = list(Effect.objects.values_list("task", flat=True))
    ran = Task.objects.filter(attempts=1).values_list("id", flat=True)
    assert sorted(effects) == sorted(ran)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_quiet_or_draining_worker_ends_what_runs_and_claims_nothing(
    worker_process: WorkerFactory, wait_until: WaitUntil, free_port: int
) -> None:
    worker = worker_process("--no-scheduler", "--health", f"127.0.0.1:{free_port}", cq=TROUBLE)
    wait_until(lambda: get(free_port, "/readyz") == (200, "claiming"))
    assert get(free_port, "/livez") == (200, "alive")
    tasks = [doze.delay(1.5), doze_sync.delay(1.5), trouble.doze_in_a_child.delay(1.5)]
    wait_until(lambda: Effect.objects.filter(kind="begin").exists())
    worker.send(signal.SIGUSR2)
    wait_until(lambda: get(free_port, "/readyz") == (503, "quiet"))
    late = [noop.delay(), noop_atomic.delay()]
    wait_until(lambda: Worker.objects.get(alive=True).state == "quiet")
    assert get(free_port, "/livez") == (200, "alive")
    # To its children too, as a terminal or systemd does: what they run is the worker's to end.
    os.killpg(worker.pid, signal.SIGTERM)
    assert_ends(worker, 0, 6)
    assert {Task.objects.get(id=task.id).status for task in tasks} == {Status.SUCCESS}
    for task in late:
        task.refresh_from_db()
        assert (task.status, task.attempts) == (Status.QUEUED, 0)


def test_a_burst_does_all_that_is_due_and_what_comes_of_it(worker_process: WorkerFactory) -> None:
    flaky_one = flaky.delay(4)
    tree = fan_out.delay(5, 0.2)
    chained = noop_atomic.delay()
    chained.chain(noop)
    plain = [noop.delay() for _ in range(300)]
    later = noop.using(run_after=600).delay()
    worker = worker_process("--burst", ready=False)
    assert_ends(worker, 0, 20)
    later.refresh_from_db()
    assert later.status == Status.QUEUED
    assert set(Task.objects.exclude(id=later.id).values_list("status", flat=True)) == {"S"}
    flaky_one.refresh_from_db()
    tree.refresh_from_db()
    assert (flaky_one.attempts, flaky_one.retries, flaky_one.result) == (4, 3, 4)
    assert (tree.status, plain[0].pk is not None) == (Status.SUCCESS, True)


def test_it_says_what_it_is_and_each_task_if_asked(worker_process: WorkerFactory) -> None:
    done, retried = noop.delay(), flaky.delay(2)
    worker = worker_process("--burst", "-v", "2", ready=False)
    assert_ends(worker, 0, 20)
    said = worker.output()
    assert re.match(rf"cq \S+ worker on {re.escape(platform.node())}, pid {worker.pid}\n", said)
    for title in ("database", "layer", "queues", "slots", "tasks", "scheduler"):
        assert re.search(rf"^  {title} +\S", said, re.MULTILINE)
    assert re.search(r"^  pages +/cq/$", said, re.MULTILINE)
    assert re.search(rf"cq\.worker: {noop.name} {done.id}: Success, \d\.\d{{3}} s$", said, re.M)
    lines = re.findall(rf"{flaky.name} {retried.id}: (.+), \d\.\d{{3}} s$", said, re.MULTILINE)
    assert [line.partition(" in ")[0] for line in lines] == ["is tried again", "Success"]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("moment", ["reach", "asyncio.run"])
def test_ctrl_c_at_the_start_is_an_end_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    def interrupt(*arguments: Any) -> None:
        if inspect.iscoroutine(arguments[0]):
            arguments[0].close()
        raise KeyboardInterrupt

    monkeypatch.setattr(f"cq.management.commands.cq_runworker.{moment}", interrupt)
    # Both would change this process for good.
    for name in ("collect_seldom", "_configure_logging"):
        monkeypatch.setattr(f"cq.management.commands.cq_runworker.{name}", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "cq_runworker"])
    assert ended.value.code == 0
    assert "KeyboardInterrupt" not in capsys.readouterr().err


def test_a_burst_ends_by_a_signal_too(worker_process: WorkerFactory, wait_until: WaitUntil) -> None:
    task = doze.delay(LONG)
    worker = worker_process("--burst", "--grace", "0", ready=False)
    wait_until(lambda: running(1), timeout=20)
    worker.send(signal.SIGTERM)
    assert_ends(worker, 0, 5)
    assert_handed_back([task])


@pytest.mark.parametrize(
    ("option", "started"), [(("--max-tasks", "7"), 7), (("--max-memory", "10"), None)]
)
def test_a_worker_ends_at_its_limits(
    worker_process: WorkerFactory, option: tuple[str, str], started: int | None
) -> None:
    tasks = [body.delay() for body in (noop, noop_atomic) for _ in range(10)]
    worker = worker_process(*option, "--no-scheduler", ready=False)
    assert_ends(worker, 0, 20)
    done = Task.objects.filter(status=Status.SUCCESS).count()
    assert done == started if started else 0 < done <= len(tasks)
    assert not Task.objects.exclude(status__in=[Status.SUCCESS, Status.QUEUED]).exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-c", "0"], "'0' is not a whole number above 0."),
        (["--grace", "soon"], "'soon' is not a number of seconds from 0 to 86400."),
        (["-Q", "a b"], "'a b'"),
        (["--health", "8001"], "'8001' is not an address to answer health probes on."),
        (["--threads", "many"], "'many' is not a whole number above 0."),
        (["--max-memory", "-1"], "'-1' is not a whole number above 0."),
    ],
)
def test_bad_arguments_get_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "cq_runworker", *arguments])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_wrong_setting_gets_one_sentence(worker_process: WorkerFactory) -> None:
    worker = worker_process(cq={"SLOT": 5}, ready=False)
    assert worker.process.wait(20) == 2
    assert "CQ['SLOT'] is not a setting of cq." in worker.output()
    assert "Did you mean 'SLOTS'?" in worker.output()
    assert "Traceback" not in worker.output()


def test_a_database_without_tables_gets_one_sentence(
    worker_process: WorkerFactory, tmp_path: Path
) -> None:
    worker = worker_process(
        env={"CQ_TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}"}, ready=False
    )
    assert worker.process.wait(20) == 4
    assert "Run python manage.py migrate." in worker.output()
    assert "Traceback" not in worker.output()

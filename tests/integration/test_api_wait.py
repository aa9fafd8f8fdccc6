"""Waiting: for an event, in seconds, in place; refused where it would hold up the others."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections, transaction

import cq
from cq import task
from cq.definition.status import Status
from cq.errors import InvalidOption, RunningLoop, WaitInsideTask, WaitTimeout
from cq.models import Task, Worker, workers
from cq.testing import drain
from cq.workflow import results
from tests.sampleapp.tasks import add, add_async, fail, noop

pytestmark = pytest.mark.usefixtures("database")


@task(atomic=False)
def waits(cqt: Any) -> Any:
    return add.delay(1).wait(timeout=5)


@task
def waits_atomically(cqt: Any) -> Any:
    return add.delay(1).wait(timeout=5)


@task
async def awaits(cqt: Any) -> Any:
    return await (await add.adelay(1))


@task
async def waits_in_a_thread(cqt: Any) -> Any:
    from cq.aio import in_db

    row = await add.adelay(1)
    return await in_db(row.wait, 5)


@contextmanager
def drained_elsewhere(when: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """Run what is due in another thread, once `when` has returned."""

    def run() -> None:
        try:
            when()
            drain()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)


# --- wait() -------------------------------------------------------------------------------------


def test_wait_returns_the_result_and_refreshes_in_place() -> None:
    row = add.delay(1, 2)
    with drained_elsewhere():
        assert row.wait(timeout=20) == 3
    assert (row.status, row.result, row.attempts) == (Status.SUCCESS, 3, 1)
    assert row.finished is not None
    assert row.wait() == 3


def test_wait_does_not_raise_for_a_failed_task() -> None:
    row = fail.delay("no")
    with drained_elsewhere():
        assert row.wait(timeout=20) is None
    assert (row.status, row.error) == (Status.FAILURE, "no")


def test_wait_is_woken_by_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def one_look(row: Task, timeout: Any) -> Iterator[Any]:
        yield results._Pause(0.001, 0.0, False)
        looked.set()
        # Without the event, the second look would be a minute later.
        yield results._Pause(60.0, 0.0, False)
        yield results._Pause(0.001, 0.0, False)

    monkeypatch.setattr(results, "_pauses", one_look)
    row = add.delay(1)
    with drained_elsewhere(lambda: looked.wait(10)):
        assert row.wait() == 1


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_wait_gives_up_and_the_task_goes_on(timeout: float) -> None:
    row = add.delay(1)
    with pytest.raises(TimeoutError, match=rf"within {timeout:g} seconds. It goes on") as caught:
        row.wait(timeout)
    assert isinstance(caught.value, WaitTimeout)
    assert caught.value.facts == {"task_id": row.id, "timeout": timeout}
    drain()
    assert row.wait(0) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    row = add.delay(1)
    with pytest.raises(InvalidOption, match="timeout is"):
        row.wait(timeout)


def test_milliseconds_are_warned_about() -> None:
    row = add.delay(1)
    drain()
    with pytest.warns(UserWarning, match=r"wait\(5000\) waits up to 5000 seconds.*milliseconds"):
        row.wait(5000)
    assert row.wait(600) == 1


def test_a_task_that_never_was() -> None:
    with transaction.atomic():
        row = add.delay(1)
        transaction.set_rollback(True)
    with pytest.raises(Task.DoesNotExist, match="rolled back"):
        row.wait(1)
    with pytest.raises(Task.DoesNotExist, match=f"Task {row.id} is not"):
        cq.wait(Task(id=row.id, func_name="x"), 1)


def test_wait_inside_a_transaction_would_be_for_ever() -> None:
    with transaction.atomic(), pytest.raises(WaitInsideTask, match=r"cq\.testing\.drain\(\)"):
        add.delay(1).wait(5)


@pytest.mark.parametrize(
    "body", [waits, waits_atomically, awaits, waits_in_a_thread], ids=lambda body: body.__name__
)
def test_a_running_task_does_not_wait_for_another(body: Any) -> None:
    row = body.delay()
    drain()
    row.refresh_from_db()
    assert row.status == Status.FAILURE
    assert row.errors[0]["type"].endswith("WaitInsideTask")
    assert "Return the other task, or chain what is to follow" in row.error
    assert row.wait(0) is None  # the mark has gone with the body


# --- await --------------------------------------------------------------------------------------


async def test_await_returns_the_result() -> None:
    row = await add_async.adelay(1, 2)
    with drained_elsewhere():
        async with asyncio.timeout(20):
            assert await row == 3
    assert row.status == Status.SUCCESS
    assert await row == 3


async def test_await_with_a_timeout() -> None:
    row = await add.adelay(1)
    with pytest.raises(WaitTimeout, match=r"within 0\.05 seconds"):
        await cq.wait_async(row, 0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await row


async def test_wait_on_a_loop_names_await() -> None:
    row = await add.adelay(1)
    with pytest.raises(RunningLoop, match="Write 'await task' instead"):
        row.wait()


async def test_many_wait_for_one() -> None:
    row = await add.adelay(1)
    copies = [await Task.objects.aget(id=row.id) for _ in range(5)]
    with drained_elsewhere():
        async with asyncio.timeout(20):
            assert await asyncio.gather(*copies) == [1] * 5


# --- no worker ----------------------------------------------------------------------------------


def silence(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "no live worker" in r.getMessage()]


def give_up(row: Task) -> None:
    with pytest.raises(WaitTimeout):
        row.wait(0.6)


def test_without_a_worker_it_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert results._SILENCE_SECONDS == 3.0
    monkeypatch.setattr(results, "_SILENCE_SECONDS", 0.05)
    row = noop.using(queue="mail").delay()
    with caplog.at_level(logging.WARNING):
        give_up(row)
    (said,) = silence(caplog)
    assert said == (
        f"Task {row.id} ({noop.name}) waits in queue 'mail' and no live worker takes it. "
        "Start one with: python manage.py cq_runworker -Q mail"
    )


@pytest.mark.parametrize(
    ("queues", "names", "alive", "silent"),
    [
        (None, [noop.name], True, True),
        (["mail"], [noop.name], True, True),
        (["default"], [noop.name], True, False),
        (None, ["another"], True, False),
        (None, [noop.name], False, False),
    ],
)
def test_a_worker_counts_if_it_takes_the_task(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    queues: Any,
    names: list[str],
    alive: bool,
    silent: bool,
) -> None:
    monkeypatch.setattr(results, "_SILENCE_SECONDS", 0.05)
    worker = Worker(id=uuid4(), queues=queues, names=names, state="running")
    workers.enlist(worker)
    Worker.objects.update(alive=alive)
    give_up(noop.using(queue="mail").delay())
    assert (silence(caplog) == []) is silent

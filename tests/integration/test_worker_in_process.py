"""A worker on the test's own loop: what is hard to bring about in another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.models import JSONField, Value
from django.utils import translation
from django.utils.translation import gettext

from cq.aio import in_db
from cq.definition.status import Status
from cq.execution import executor
from cq.models import Task, Worker
from cq.signals import task_finished, task_retried, task_started
from cq.worker import claimer
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner
from cq.worker.service import outlive
from tests.conftest import Layers
from tests.sampleapp import kinds, tasks, trouble

AwaitUntil = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_layers(database: Any, use_layers: Layers, settings: Any) -> None:
    """Rows alone: what happens here happens without any help from a layer."""
    use_layers("none")
    settings.CQ = {"POLL": 0.2, "HEARTBEAT": 0.2}


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Runner]:
    """A worker that is drained at the end of the block, with all its sessions closed."""
    runner = Runner(WorkerOptions.from_settings(scheduler=False, grace=5.0, **options))
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(runner.run())
        try:
            await runner.ready.wait()
            yield runner
        finally:
            runner.stop()
            await asyncio.wait([worker])
            await in_db(connections.close_all)


async def test_a_claim_whose_answer_was_lost_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = []

    def claim_and_lose(*args: Any) -> Any:
        claimed = real(*args)
        if claimed and not lost:
            lost.extend(claimed)
            raise OperationalError("the connection is lost")
        return claimed

    real = claimer.claim
    monkeypatch.setattr(claimer, "claim", claim_and_lose)
    waiting = [await body.adelay() for body in (tasks.noop, tasks.noop_atomic, tasks.where)]
    async with running():
        for task in waiting:
            async with asyncio.timeout(10):
                await task
        assert len(lost) > 0
        assert {(task.status, task.attempts, task.crashes) for task in waiting} == {("S", 1, 0)}


async def test_what_a_claim_in_flight_brings_to_a_forced_stop_is_handed_back(
    monkeypatch: pytest.MonkeyPatch, await_until: AwaitUntil
) -> None:
    in_flight, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def claim_and_hold(*args: Any) -> Any:
        claimed = real(*args)
        if {task.func_name for task in claimed} & {tasks.noop.name, tasks.noop_atomic.name}:
            loop.call_soon_threadsafe(in_flight.set)
            assert go_on.wait(10)
        return claimed

    real = claimer.claim
    monkeypatch.setattr(claimer, "claim", claim_and_hold)
    running_one = await tasks.doze.adelay(60.0)
    async with running() as runner, asyncio.timeout(10):
        await await_until(lambda: runner.attempts.awaited)
        waiting = await tasks.noop.adelay_many([((), {})] * 2)
        runner.claimer.ring()
        await in_flight.wait()
        runner.force()
        loop.call_later(0.1, go_on.set)
    for task in (running_one, *waiting):
        await task.arefresh_from_db()
        assert (task.status, task.attempts, task.releases) == (Status.QUEUED, 0, 1)


async def test_a_row_that_does_not_fit_its_function_says_so() -> None:
    odd: list[tuple[dict[str, Any], str]] = [
        ({"args": "text"}, "args of type str"),
        ({"args": {"a": 1}}, "args of type dict"),
        ({"args": Value(None, JSONField())}, "args of type NoneType"),
        ({"kwargs": [1]}, "kwargs of type list"),
        ({"kwargs": {"unknown": 1}}, "got an unexpected keyword argument 'unknown'"),
        ({"args": [1, 2, 3]}, "too many positional arguments"),
    ]
    waiting = []
    for values, sentence in odd:
        task = await tasks.noop.using(run_after=3600).adelay()
        waiting.append((task, sentence))
        await in_db(Task.objects.filter(id=task.id).update, run_at=task.submitted, **values)
    async with running(), asyncio.timeout(10):
        for task, sentence in waiting:
            await task
            assert task.status == Status.FAILURE
            assert sentence in task.error
        await (await tasks.noop.adelay())


async def test_a_row_that_cannot_be_read_fails_alone() -> None:
    if connections["default"].vendor != "postgresql":
        pytest.skip("SQLite stores nothing that it cannot read")
    poison, other = await tasks.noop.adelay(), await tasks.noop.adelay()
    unreadable = f"[{'9' * 5000}]"  # Python reads no number of more than 4,300 digits

    def poison_row() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("UPDATE cq_task SET args = %s WHERE id = %s", [unreadable, poison.id])

    await in_db(poison_row)
    async with running(), asyncio.timeout(15):
        await other
        row = Task.objects.filter(id=poison.id).values_list("status", "error")
        while (found := await in_db(row.get))[0] != Status.FAILURE:
            await (await tasks.noop.adelay())
    assert "cannot be read" in str(found[1])
    assert other.attempts == 1


async def test_bodies_cross_between_threads_and_the_loop() -> None:
    async with running(), asyncio.timeout(10):
        assert await (await trouble.cross_to_the_loop.adelay()) == "from the loop"
        assert await (await trouble.cross_to_a_thread.adelay()) == "from a thread"


async def test_signals_are_sent_for_every_kind_of_body() -> None:
    heard: list[tuple[str, str, Any]] = []
    signals = {"started": task_started, "finished": task_finished, "retried": task_retried}

    def listen(name: str) -> Callable[..., None]:
        def hear(**facts: Any) -> None:
            heard.append((name, facts["func_name"].rpartition(".")[2], facts.get("status")))
            raise RuntimeError("a receiver may not harm a task")

        return hear

    receivers = {name: listen(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    try:
        async with running(), asyncio.timeout(20):
            for body in (tasks.noop, tasks.noop_sync, tasks.noop_atomic, tasks.fail_async):
                await (await body.adelay())
            await (await tasks.commit_effect.adelay())
            await (await tasks.flaky_async.adelay(2))
    finally:
        for name, signal in signals.items():
            signal.disconnect(receivers[name])
    by_task: dict[str, list[tuple[str, Any]]] = {}
    for name, func_name, status in heard:
        by_task.setdefault(func_name, []).append((name, status))
    once = [("started", None), ("finished", Status.SUCCESS)]
    assert by_task == {
        "noop": once,
        "noop_sync": once,
        "noop_atomic": once,
        "commit_effect": once,
        "fail_async": [("started", None), ("finished", Status.FAILURE)],
        "flaky_async": [("started", None), ("retried", None), *once],
    }


async def test_a_body_sees_nothing_of_those_before_it() -> None:
    with translation.override("de"):
        async with running(threads=1, lanes=1), asyncio.timeout(10):
            await (await trouble.change_surroundings.adelay())
            await (await trouble.change_surroundings_async.adelay())
            for body in (trouble.see_surroundings, trouble.see_surroundings_async):
                seen = await (await body.adelay())
                assert seen == {"language": "en-us", "zone": "UTC", "queries": 0}
    assert gettext("Monday") == "Monday"


async def test_a_worker_opens_no_more_sessions_than_it_says(await_until: AwaitUntil) -> None:
    if connections["default"].vendor != "postgresql":
        pytest.skip("SQLite has no sessions to count")

    def sessions() -> int:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            return int(cursor.fetchone()[0])

    before = await in_db(sessions)
    async with running(threads=3, lanes=2) as runner, asyncio.timeout(20):
        bodies = (tasks.write_effect, tasks.write_effect_unsafely, tasks.write_effect_async)
        waiting = [await body.adelay() for body in bodies for _ in range(20)]
        for task in waiting:
            await task
        assert await in_db(sessions) - before <= runner.sessions == 3 + 2 + 4

    async def closed() -> bool:
        return await in_db(sessions) <= before

    await await_until(closed)
    await in_db(connections.close_all)


async def test_sessions_of_the_engine_stay_out_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = connections["default"]
    if entry.vendor != "postgresql":
        pytest.skip("SQLite has no pool")
    options = {**entry.settings_dict.get("OPTIONS", {}), "pool": {"min_size": 1, "max_size": 2}}
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    waiting = [await tasks.write_effect.adelay() for _ in range(8)]
    try:
        # More threads than the pool is large, and none waits for the engine's sessions.
        async with running(threads=2, lanes=1), asyncio.timeout(20):
            for task in waiting:
                await task
    finally:
        await in_db(lambda: connections["default"].close_pool())


async def test_a_service_outlives_its_faults() -> None:
    runs = []

    async def fail_twice() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("a defect")

    await outlive("test", fail_twice)
    assert len(runs) == 3


async def test_a_worker_goes_on_when_its_row_is_declared_dead(await_until: AwaitUntil) -> None:
    async with running() as runner, asyncio.timeout(20):
        first = runner.membership.worker
        slow = await tasks.doze.adelay(30.0)
        await await_until(lambda: runner.attempts.awaited == 1)
        await in_db(Worker.objects.filter(id=first).update, alive=False)
        await await_until(lambda: runner.membership.worker not in (None, first))
        # Its own rescuer takes what the dead row held; a suspect runs in a child.
        await await_until(lambda: in_db(lambda: Task.objects.get(id=slow.id).crashes == 1))
        await (await tasks.noop.adelay())
        await slow.arevoke()
        rows = await in_db(lambda: list(Worker.objects.values_list("alive", flat=True)))
        assert sorted(rows) == [False, True]


async def test_an_atomic_body_that_lasts_is_named_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    await_until: AwaitUntil,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(executor, "LONG_TRANSACTION", 0.2)
    go = tmp_path / "go"
    async with running(), asyncio.timeout(20):
        short = await tasks.noop_atomic.adelay()
        await short
        async_one = await kinds.lingering.adelay(str(go))
        atomic = await kinds.lingering_atomic.adelay(str(go))
        await await_until(lambda: f"(task {atomic.id}) is atomic" in caplog.text)
        go.touch()
        await atomic
        await async_one
    assert caplog.text.count("is atomic and has run for 0.2 s") == 1

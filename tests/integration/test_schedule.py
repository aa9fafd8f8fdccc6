"""Repeating tasks in time: who fires a tick, what is skipped, when the scheduler looks."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from cq.definition.status import Status
from cq.models import RepeatingTask, Task
from cq.worker.scheduler import Scheduler
from cq.workflow import schedule
from cq.workflow.schedule import FireResult, fire_due, fire_entry, problem_of
from tests.sampleapp.tasks import add, echo, noop

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def entry(**changes: Any) -> RepeatingTask:
    """An entry whose next tick is at NOON, hourly unless said otherwise."""
    values: dict[str, Any] = {"func_name": noop.name, "crontab": "0 * * * *"} | changes
    made = RepeatingTask.objects.create(**values)
    RepeatingTask.objects.filter(pk=made.pk).update(next_run=NOON)
    made.refresh_from_db()
    return made


# --- firing -------------------------------------------------------------------------------------


def test_a_due_entry_becomes_one_task() -> None:
    hourly = entry(func_name=echo.name, args=[1], kwargs={"a": 2}, queue="q", priority=7)
    assert fire_due(NOON - MINUTE).tasks == []
    result = fire_due(NOON + timedelta(seconds=1))
    [task] = result.tasks
    assert (task.func_name, task.args, task.kwargs) == (echo.name, [1], {"a": 2})
    assert (task.queue, task.priority, task.status) == ("q", 7, Status.QUEUED)
    assert (task.repeating_id, task.tick, task.missed) == (hourly.pk, NOON, 0)
    assert result.next_due == NOON + 60 * MINUTE
    assert fire_due(NOON + timedelta(seconds=2)).tasks == []
    hourly.refresh_from_db()
    assert hourly.last_run == NOON + timedelta(seconds=1)


def test_nothing_is_due_when_nothing_is_scheduled() -> None:
    result = fire_due()
    assert (result.tasks, result.next_due) == ([], None)
    assert abs(result.now - timezone.now()) < timedelta(seconds=5)


def test_eight_schedulers_fire_a_tick_once() -> None:
    hourly = entry(coalesce=False)
    barrier = threading.Barrier(8)
    fired: list[list[Task]] = []

    def fire() -> None:
        barrier.wait()
        for hour in range(3):
            fired.append(fire_due(NOON + hour * 60 * MINUTE).tasks)
        connections.close_all()

    threads = [threading.Thread(target=fire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ticks = [task.tick for tasks in fired for task in tasks]
    assert sorted(t for t in ticks if t) == [NOON + hour * 60 * MINUTE for hour in range(3)]
    assert Task.objects.count() == 3
    hourly.refresh_from_db()
    assert hourly.next_run == NOON + 3 * 60 * MINUTE


def test_a_tick_fired_by_another_since_the_look_is_not_followed_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hourly = entry(coalesce=False)
    fire_due(NOON)
    monkeypatch.setattr(schedule, "_look", lambda db, now, limit: (now, [hourly.pk], None))
    result = fire_due(NOON)
    assert (result.tasks, result.next_due) == ([], NOON + 60 * MINUTE)


def test_missed_ticks_become_one_run_that_counts_them() -> None:
    hourly = entry()
    [task] = fire_due(NOON + 5 * 60 * MINUTE + MINUTE).tasks
    assert (task.tick, task.missed) == (NOON + 5 * 60 * MINUTE, 5)
    hourly.refresh_from_db()
    assert hourly.next_run == NOON + 6 * 60 * MINUTE


def test_a_long_downtime_costs_no_long_count() -> None:
    minutely = entry(crontab="* * * * *")
    later = NOON + timedelta(days=400)
    [task] = fire_due(later).tasks
    assert task.missed == 1000
    minutely.refresh_from_db()
    assert minutely.next_run == later + MINUTE


def test_an_entry_may_wait_for_its_next_time_after_downtime() -> None:
    hourly = entry(on_missed="skip")
    assert fire_due(NOON + 90 * MINUTE).tasks == []
    hourly.refresh_from_db()
    assert (hourly.skipped, hourly.next_run) == (2, NOON + 120 * MINUTE)
    [task] = fire_due(NOON + 120 * MINUTE).tasks
    assert task.tick == NOON + 120 * MINUTE


def test_a_tick_is_skipped_while_the_last_run_is_active() -> None:
    hourly = entry()
    [first] = fire_due(NOON).tasks
    second_tick = NOON + 60 * MINUTE
    assert fire_due(second_tick).tasks == []
    hourly.refresh_from_db()
    assert (hourly.skipped, hourly.last_skip, hourly.last_run) == (1, second_tick, NOON)
    assert hourly.next_run == NOON + 120 * MINUTE
    first.revoke()
    assert len(fire_due(NOON + 120 * MINUTE).tasks) == 1


def test_without_coalescing_every_tick_runs() -> None:
    entry(coalesce=False)
    assert len(fire_due(NOON).tasks) == 1
    assert len(fire_due(NOON + 60 * MINUTE).tasks) == 1


def test_a_tick_that_exists_is_not_made_again() -> None:
    hourly = entry(coalesce=False)
    fire_due(NOON)
    RepeatingTask.objects.filter(pk=hourly.pk).update(next_run=NOON)
    assert fire_due(NOON).tasks == []
    assert Task.objects.count() == 1
    hourly.refresh_from_db()
    assert hourly.next_run == NOON + 60 * MINUTE


def test_a_firing_that_is_rolled_back_leaves_the_tick() -> None:
    entry()
    with transaction.atomic():
        assert fire_due(NOON).tasks
        transaction.set_rollback(True)
    assert Task.objects.count() == 0
    assert len(fire_due(NOON).tasks) == 1


def test_a_vanished_function_is_reported_once_and_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone, stays = entry(name="gone"), entry(name="stays")
    RepeatingTask.objects.filter(pk=gone.pk).update(func_name="shop.tasks.vanished")
    with caplog.at_level(logging.ERROR, "cq.schedule"):
        result = fire_due(NOON)
        again = fire_due(NOON)
    assert [task.repeating_id for task in result.tasks] == [stays.pk]
    assert again.tasks == []
    assert caplog.text.count("shop.tasks.vanished") == 1
    gone.refresh_from_db()
    assert gone.next_run == NOON
    assert result.next_due == NOON + 60 * MINUTE
    assert "shop.tasks.vanished" in problem_of(gone)


@pytest.mark.parametrize(
    "broken", [{"crontab": "x"}, {"timezone": "Mars/X"}, {"kwargs": {"frist": 1}}]
)
def test_a_row_broken_by_hand_stops_nobody(broken: dict[str, Any]) -> None:
    bad, good = entry(name="bad", func_name=add.name, args=[1]), entry(name="good")
    RepeatingTask.objects.filter(pk=bad.pk).update(**broken)
    assert [task.repeating_id for task in fire_due(NOON).tasks] == [good.pk]
    bad.refresh_from_db()
    assert problem_of(bad)


def test_an_entry_inserted_without_a_next_run_gets_one() -> None:
    hourly = entry()
    RepeatingTask.objects.filter(pk=hourly.pk).update(next_run=None)
    assert fire_due(NOON).tasks == []
    hourly.refresh_from_db()
    assert hourly.next_run == NOON + 60 * MINUTE


def test_the_limit_leaves_the_rest_for_the_next_look() -> None:
    for number in range(5):
        entry(name=str(number), func_name=echo.name, args=[number])
    first = fire_due(NOON, limit=3)
    assert (len(first.tasks), first.next_due) == (3, NOON)
    assert len(fire_due(NOON, limit=3).tasks) == 2


def test_an_edit_fires_a_due_tick_first() -> None:
    hourly = entry()
    fire_entry(hourly.pk)
    assert Task.objects.filter(repeating=hourly.pk).count() == 1
    fire_entry(hourly.pk)
    assert Task.objects.count() == 1


@pytest.mark.parametrize(
    ("start", "ticks"),
    [
        (datetime(2026, 3, 28, 1, 30, tzinfo=UTC), ["29T01:00", "30T00:30"]),
        (datetime(2026, 10, 24, 0, 30, tzinfo=UTC), ["25T00:30", "26T01:30"]),
    ],
)
def test_both_berlin_transitions(start: datetime, ticks: list[str]) -> None:
    nightly = entry(crontab="30 2 * * *", timezone="Europe/Berlin", coalesce=False)
    RepeatingTask.objects.filter(pk=nightly.pk).update(next_run=start)
    fired = []
    for hours in range(54):
        fired += [task.tick for task in fire_due(start + timedelta(hours=hours, minutes=1)).tasks]
    assert [f"{tick:%dT%H:%M}" for tick in fired[1:] if tick] == ticks


def test_submit_runs_now_and_returns_none_when_coalesced() -> None:
    hourly = entry()
    task = hourly.submit()
    assert task.repeating_id == hourly.pk
    assert hourly.submit() is None
    hourly.refresh_from_db()
    assert hourly.next_run == NOON


def test_a_moved_clock_does_not_fire_early() -> None:
    hourly = entry(crontab="0 * * * *")
    RepeatingTask.objects.filter(pk=hourly.pk).update(next_run=timezone.now() + 60 * MINUTE)
    with time_machine.travel(timezone.now() + timedelta(days=1)):
        # The database's clock decides, not the worker's (on SQLite they are the same).
        assert len(fire_due().tasks) == (0 if connection.vendor == "postgresql" else 1)


# --- the service --------------------------------------------------------------------------------


class Lane:
    """An engine lane of the test: answers with what it was given."""

    def __init__(self, *results: FireResult | DatabaseError) -> None:
        self.results = list(results)

    async def __call__(self, fn: Any) -> FireResult:
        result = self.results.pop(0)
        if isinstance(result, DatabaseError):
            raise result
        return result


@pytest.mark.parametrize(
    ("seconds", "due", "pause"),
    [(0, None, 10), (55, None, 5), (59.9, None, 0.1), (30, 2, 2), (30, -1, 0)],
)
async def test_the_scheduler_looks_at_whole_minutes_and_at_due_times(
    seconds: float, due: float | None, pause: float
) -> None:
    now = NOON + timedelta(seconds=seconds)
    next_due = None if due is None else now + timedelta(seconds=due)
    scheduler = Scheduler(Lane(FireResult(now, next_due)))
    assert await scheduler.look() == pytest.approx(pause, abs=0.05)


async def test_the_scheduler_survives_its_database(caplog: pytest.LogCaptureFixture) -> None:
    lane = Lane(DatabaseError("gone"), DatabaseError("gone"), FireResult(NOON, None))
    scheduler = Scheduler(lane)
    with caplog.at_level(logging.WARNING, "cq.schedule"):
        pauses = [await scheduler.look() for _ in range(3)]
    assert all(0 < pause <= 2 for pause in pauses[:2])
    assert caplog.text.count("gone") == 1


async def test_the_scheduler_runs_until_it_is_cancelled() -> None:
    looked = asyncio.Event()

    async def lane(fn: Any) -> FireResult:
        looked.set()
        return FireResult(NOON, None)

    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as group:
            running = group.create_task(Scheduler(lane).run())
            await looked.wait()
            running.cancel()
    assert running.cancelled()

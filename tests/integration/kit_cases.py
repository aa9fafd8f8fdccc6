"""
Tests as a user of `cq.testing` writes them, for every base class that Django offers.

Collected by test_testing_kit.py on the database of the run, and run there a second time by
Django's own runner on its default test database, SQLite in memory. Each case checks after
itself that no thread, session or transaction was left behind.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.utils import timezone

from cq import task
from cq.definition.status import Status
from cq.errors import InvalidOption, RunningLoop, WaitInsideTask, WaitTimeout
from cq.models import RepeatingTask, Task
from cq.testing import adrain, drain, inline, wait_for
from tests.sampleapp.models import Effect, Note
from tests.sampleapp.tasks import (
    add,
    add_async,
    calc_a,
    commit_effect,
    echo,
    fail,
    fan_out_effects,
    flaky_async,
    grow,
    noop,
    where_in_a_child,
    write_and_fail,
    write_effect_async,
)


@task(atomic=False)
def break_sql(cqt: Any) -> None:
    """An SQL error that the body lets out, after a write that stays."""
    Note.objects.create(text="kept", unique="u")
    Note.objects.create(text="refused", unique="u")


@task(atomic=False)
def survive_sql(cqt: Any) -> int:
    Note.objects.create(text="kept", unique="u")
    try:
        with transaction.atomic():
            Note.objects.create(text="refused", unique="u")
    except IntegrityError:
        return Note.objects.count()
    return -1


@task(atomic=False)
def write_durably(cqt: Any) -> None:
    with transaction.atomic(durable=True):
        Note.objects.create(text="durable")


@task
async def break_sql_async(cqt: Any) -> None:
    await Note.objects.acreate(text="kept", unique="v")
    await Note.objects.acreate(text="refused", unique="v")


@task
def write_then_delay(cqt: Any) -> None:
    note = Note.objects.create(text="new")
    transaction.on_commit(lambda: add.delay(note.pk))


@task(atomic=False, retries=3, backoff=[60, 600, 3600])
def needs_patience(cqt: Any) -> int:
    if cqt.attempt < 4:
        raise ConnectionError(f"attempt {cqt.attempt}")
    return int(cqt.attempt)


@task
def in_which_thread(cqt: Any) -> int:
    return threading.get_ident()


def sessions() -> int:
    """How many sessions this database has, where it can tell; else how many are open here."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend'"
            )
            return int(cursor.fetchone()[0])
    return sum(one.connection is not None for one in connections.all())


class LeavesNothing(SimpleTestCase):
    """Compare threads, sessions and the open transaction before and after each test."""

    databases = {"default"}  # noqa: RUF012 - Django's own name
    tells = False  # whether the test has workers rung from within a transaction

    def setUp(self) -> None:
        super().setUp()
        connection.ensure_connection()
        self._threads = set(threading.enumerate())
        self._state = self._look()
        self.addCleanup(self._compare)

    def _look(self) -> tuple[Any, ...]:
        return sessions(), connection.in_atomic_block, list(connection.savepoint_ids)

    def _compare(self) -> None:
        for thread in set(threading.enumerate()) - self._threads:
            # The loop of an async test is about to end; the dispatcher belongs to delay().
            thread.join(5 if thread.name != "cq-dispatcher" else 0)
            if thread.is_alive():
                assert thread.name == "cq-dispatcher"
                assert self.tells or not connection.in_atomic_block
        assert self._look() == self._state


class Drains:
    """What drain() does, whatever the base class."""

    def ended(self, row: Task) -> Task:
        row.refresh_from_db()
        return row

    def test_sync_bodies_run_on_the_calling_thread(self: Any) -> None:
        row = in_which_thread.delay()
        drain()
        assert self.ended(row).result == threading.get_ident()

    def test_every_kind_of_body(self: Any) -> None:
        rows = [add.delay(1, 2), add_async.delay(1, 2), where_in_a_child.delay(), noop.delay()]
        rows += [commit_effect.delay("a"), write_effect_async.delay("b"), grow.delay(3, 2)]
        ran = drain()
        assert {self.ended(row).status for row in rows} == {Status.SUCCESS}
        assert [row.result for row in rows[:2]] == [3, 3]
        assert {effect.kind for effect in Effect.objects.all()} == {"a", "b"}
        assert len(ran.named(grow)) == 7
        assert ran.named(grow.name) == ran.named(grow)

    def test_trees_chains_and_failures(self: Any) -> None:
        tree, link = fan_out_effects.delay(3), calc_a.delay(3).chain(add, 10)
        bad, torn = fail.delay("no"), write_and_fail.delay()
        flaky = flaky_async.delay(3)
        ran = drain()
        assert self.ended(tree).status == Status.SUCCESS
        assert self.ended(link).result == 12
        assert (self.ended(bad).status, bad.error) == (Status.FAILURE, "no")
        assert self.ended(torn).status == Status.FAILURE
        assert Effect.objects.count() == 4
        assert self.ended(flaky).result == 3
        assert [row.status for row in ran.named(flaky_async)] == ["Y", "Y", "S"]

    def test_an_sql_error_of_a_body_harms_nobody(self: Any) -> None:
        rows = [break_sql.delay(), break_sql_async.delay(), survive_sql.delay(), noop.delay()]
        drain()
        statuses = [self.ended(row).status for row in rows]
        assert statuses[:2] == [Status.FAILURE] * 2
        assert statuses[3] == Status.SUCCESS
        assert not Note.objects.filter(text="refused").exists()

    def test_a_body_may_commit_for_good(self: Any) -> None:
        row = write_durably.delay()
        drain()
        assert self.ended(row).status == Status.SUCCESS
        assert Note.objects.get().text == "durable"

    def test_a_callback_after_the_commit_of_a_body_runs(self: Any) -> None:
        write_then_delay.delay()
        ran = drain()
        assert [row.func_name for row in ran] == [write_then_delay.name, add.name]

    def test_delayed_tasks_wait_for_their_time(self: Any) -> None:
        late = echo.using(run_after=7200).delay("late")
        soon = echo.using(run_after=timedelta(minutes=5)).delay("soon")
        now = echo.delay("now")
        assert [row.id for row in drain()] == [now.id]
        due = self.ended(late).run_at
        assert [row.id for row in drain(now=timedelta(hours=1))] == [soon.id]
        assert abs(self.ended(late).run_at - due) < timedelta(milliseconds=5)
        assert [row.id for row in drain(now=timezone.now() + timedelta(hours=3))] == [late.id]

    def test_the_clock_goes_from_tick_to_tick(self: Any) -> None:
        rows = [echo.using(run_after=span, priority=-span // 60).delay(span) for span in (300, 60)]
        ran = drain(now=3600)
        assert [row.id for row in ran] == [rows[1].id, rows[0].id]

    def test_retries_take_their_time(self: Any) -> None:
        row = needs_patience.delay()
        attempts = [len(drain(now=span)) for span in (0, 59, 120, 500, 700, 3700, 5000)]
        assert attempts == [1, 0, 1, 0, 1, 0, 1]
        assert (self.ended(row).status, row.result) == (Status.SUCCESS, 4)

    def test_repeating_entries_fire_at_each_tick(self: Any) -> None:
        entry = RepeatingTask.schedule("*/10 * * * *", echo, ("tick",), coalesce=False)
        start = entry.next_run - timedelta(minutes=1)
        assert drain() == []
        ran = drain(now=start + timedelta(minutes=32))
        assert len(ran) == 4
        ticks = [start + timedelta(minutes=1 + 10 * number) for number in range(4)]
        assert [row.tick for row in ran] == ticks
        assert [row.missed for row in ran] == [0] * 4
        entry.refresh_from_db()
        assert entry.next_run == ticks[-1] + timedelta(minutes=10)

    def test_what_has_expired_fails(self: Any) -> None:
        row = echo.using(run_after=600, expires=300).delay()
        kept = echo.using(expires=300).delay()
        drain(now=1200)
        assert self.ended(row).status == Status.FAILURE
        assert "Expired" in row.error
        assert self.ended(kept).status == Status.SUCCESS

    def test_only_some_queues(self: Any) -> None:
        mail, other = echo.using(queue="mail").delay(), echo.using(queue="other").delay()
        assert [row.id for row in drain(queues=["mail"])] == [mail.id]
        assert [row.id for row in drain()] == [other.id]

    def test_revoke_and_retry_take_effect(self: Any) -> None:
        row, bad = echo.delay(), fail.delay()
        row.revoke()
        assert [one.id for one in drain()] == [bad.id]
        assert self.ended(row).status == Status.REVOKED
        bad.retry()
        assert [one.id for one in drain()] == [bad.id]

    def test_inline(self: Any) -> None:
        with inline():
            row = add.delay(1, 2)
        assert (row.result, Task.objects.count()) == (3, 0)

    def test_odd_options_are_refused(self: Any) -> None:
        with pytest.raises(InvalidOption, match="which is no list of queue names"):
            drain(queues="default")
        with pytest.raises(InvalidOption, match="'a b', which is no queue name"):
            drain(queues=["a b"])
        with pytest.raises(InvalidOption, match=r"status is 'Success', .* 'S' \(Success\)"):
            wait_for(noop.delay(), "Success")
        with pytest.raises(InvalidOption, match="timeout is -1"):
            wait_for(noop.delay(), timeout=-1)

    def test_a_moment_needs_a_zone(self: Any) -> None:
        with pytest.raises(ValueError, match="without a time zone"):
            drain(now=datetime(2026, 1, 1))
        drain(now=datetime(2001, 1, 1, tzinfo=UTC))


class InTestCase(Drains, LeavesNothing, TestCase):
    """Everything inside one transaction that is rolled back."""

    def test_waiting_names_the_way_out(self) -> None:
        row = noop.delay()
        with pytest.raises(WaitInsideTask, match=r"cq\.testing\.drain\(\)"):
            row.wait(1)
        with pytest.raises(WaitInsideTask, match=r"Use drain\(\), or TransactionTestCase"):
            wait_for(row)
        drain()
        assert row.wait(0) is None
        assert wait_for(row) == row

    def test_callbacks_of_the_test_are_left_to_django(self) -> None:
        transaction.on_commit(lambda: echo.delay("never"))
        assert drain() == []
        self.tells = True
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: echo.delay("once"))
            write_then_delay.delay()
            assert len(drain()) == 2
        assert len(drain()) == 1
        assert callbacks

    def test_verbs_that_were_captured_are_not_repeated(self) -> None:
        row = fail.delay()
        drain()
        self.tells = True
        with self.captureOnCommitCallbacks(execute=True):
            row.retry()
        assert [len(drain()) for _ in range(2)] == [1, 0]

    async def test_an_async_test(self) -> None:
        row = await add_async.adelay(1, 2)
        with pytest.raises(RunningLoop):
            drain()
        assert len(await adrain()) == 1
        await row.arefresh_from_db()
        assert row.result == 3


class InTransactionTestCase(Drains, LeavesNothing, TransactionTestCase):
    """Real commits; the tables are emptied afterwards."""

    def test_wait_for_gives_up(self) -> None:
        row = noop.delay()
        with pytest.raises(WaitTimeout, match=r"is Queued after 0\.05 s, not"):
            wait_for(row, timeout=0.05)
        drain()
        assert wait_for(row, Status.SUCCESS) == row
        with pytest.raises(WaitTimeout, match=r"not Failure. Its error is None"):
            wait_for(row, "F", timeout=0.05)
        assert row.wait(0) is None

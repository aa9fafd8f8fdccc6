"""Errorbacks: called once, with the row and the error, when a task has ended badly."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from cq import task
from cq.definition.status import Status
from cq.errors import InvalidTask
from cq.models import Task
from cq.testing import drain
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import add, fail, leave_effect, noop

pytestmark = pytest.mark.usefixtures("database")

told: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def nobody_was_told() -> None:
    told.clear()


def tell(row: Task, error: str, *args: Any, **kwargs: Any) -> None:
    told.append((row.func_name, row.status, error, *args, kwargs))


async def tell_async(row: Task, error: str) -> None:
    told.append(("async", error))


@task
async def tell_as_task(cqt: Any, row: Task, error: str, word: str) -> None:
    cqt.log(f"{word} {error}")
    await row.arefresh_from_db()
    told.append(("task", word))


@task
def tell_atomically(cqt: Any, row: Task, error: str) -> None:
    leave_effect(cqt, "told")
    raise ValueError("rolled back")


@task(atomic=False)
def plan_with_errorback(cqt: Any) -> None:
    cqt.subtask(fail, "in a child").errorback(tell, "child")


@task(atomic=False, retries=1, backoff=0)
def asks_and_fails(cqt: Any) -> None:
    cqt.errorback(tell, cqt.attempt)
    raise ValueError(f"attempt {cqt.attempt}")


@task
def asks_and_fails_atomically(cqt: Any) -> None:
    leave_effect(cqt, "rolled back")
    cqt.errorback(tell, "atomic")
    raise ValueError("of the body")


@task
async def asks_and_plans(cqt: Any, fails: bool) -> None:
    cqt.errorback(tell, "own")
    cqt.subtask(fail, "in a child") if fails else cqt.subtask(noop)


@task
async def asks_and_commits(cqt: Any, fails: bool) -> Any:
    def save() -> None:
        cqt.errorback(tell, "from the commit")
        if fails:
            raise ValueError("in the commit")

    return await cqt.commit(save)


def test_a_running_task_asks_to_be_told_of() -> None:
    row = asks_and_fails.delay()
    drain()
    assert told == [(asks_and_fails.name, "F", "attempt 2", 2, {})]
    told.clear()
    row.errorback(tell, "late")
    drain()
    assert told == [(asks_and_fails.name, "F", "attempt 2", "late", {})]


def test_the_roll_back_of_a_body_leaves_its_errorback() -> None:
    asks_and_fails_atomically.delay().errorback(tell, "outside")
    drain()
    assert [args for *_, args, _ in told] == ["outside", "atomic"]
    assert Effect.objects.count() == 0


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_that_waits_keeps_whom_to_tell(fails: bool) -> None:
    asks_and_plans.delay(fails)
    drain()
    expected = [(asks_and_plans.name, "I", "in a child", "own", {})]
    assert told == (expected if fails else [])


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_commit_asked_for_goes_with_it(fails: bool) -> None:
    row = asks_and_commits.delay(fails)
    drain()
    row.refresh_from_db()
    assert row.status == (Status.FAILURE if fails else Status.SUCCESS)
    assert (told, row.errorbacks) == ([], [])


def test_in_place_a_running_task_asks_as_well(settings: Any) -> None:
    settings.CQ = {"SERIAL": True}
    asks_and_fails.delay()
    asks_and_plans.delay(True)
    assert told == [
        (asks_and_fails.name, "F", "attempt 2", 2, {}),
        (asks_and_plans.name, "I", "in a child", "own", {}),
    ]


def test_an_errorback_is_told_once_of_the_final_failure() -> None:
    row = fail.using(retries=2).delay("no")
    assert row.errorback(tell, 1, x=2) is row
    drain()
    assert told == []
    drain(now=3600)
    assert told == [(fail.name, "F", "no", 1, {"x": 2})]
    row.refresh_from_db()
    assert (row.status, row.attempts, row.retries, len(row.errors)) == ("F", 3, 2, 3)
    drain(now=3600)
    assert len(told) == 1


def test_each_kind_of_function_may_be_one() -> None:
    row = fail.delay("no")
    row.errorback(tell).errorback(tell_async).errorback(tell_as_task, "sorry")
    drain()
    assert sorted(one[0] for one in told) == ["async", "task", fail.name]
    assert row.format_logs() == "sorry no"


def test_an_atomic_errorback_rolls_back() -> None:
    fail.delay("no").errorback(tell_atomically)
    drain()
    assert not Effect.objects.exists()
    failed = Task.objects.get(func_name="cq.tasks.call_errorback")
    assert (failed.status, failed.error) == (Status.FAILURE, "rolled back")


def test_a_child_and_its_parent_each_tell_their_own() -> None:
    plan_with_errorback.delay().errorback(tell, "parent")
    drain()
    assert {(one[1], one[3]) for one in told} == {("F", "child"), ("I", "parent")}


def test_nobody_is_told_of_a_success_or_a_revoke() -> None:
    add.delay(1).errorback(tell)
    revoked = noop.delay().errorback(tell)
    revoked.revoke()
    drain()
    assert told == []


def test_an_errorback_onto_an_ended_task() -> None:
    failed, done = fail.delay("no"), add.delay(1)
    drain()
    failed.errorback(tell)
    done.errorback(tell)
    drain()
    assert [one[2] for one in told] == ["no"]


def test_nothing_is_imported_for_an_errorback() -> None:
    row = fail.delay("no")
    entry = {"path": "this.d", "args": [], "kwargs": {}}
    Task.objects.filter(id=row.id).update(errorbacks=[entry])
    assert "this" not in sys.modules
    drain()
    assert "this" not in sys.modules
    failed = Task.objects.get(func_name="cq.tasks.call_errorback")
    assert "No loaded module defines the errorback 'this.d'" in failed.error


def test_what_cannot_be_found_again_is_refused() -> None:
    with pytest.raises(InvalidTask):
        noop.delay().errorback(lambda row, error: None)


async def test_the_twin() -> None:
    row = await fail.adelay("no")
    assert await row.aerrorback(tell) is row
    await row.arefresh_from_db()
    assert [entry["path"] for entry in row.errorbacks] == [f"{__name__}.tell"]

"""The verbs of a row: submit, retry and revoke, in a transaction and on an event loop."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from cq import task
from cq.definition.status import Status
from cq.errors import DuplicateSubmit, IllegalTransition, InvalidArguments, RunningLoop
from cq.models import Task
from cq.testing import drain
from tests.sampleapp.tasks import add, echo, fail, fan_out, flaky, noop

pytestmark = pytest.mark.usefixtures("database")

moods: list[str] = []


@task(atomic=False)
def moody(cqt: Any) -> str:
    if moods:
        raise ValueError(moods[0])
    return "good"


@task(atomic=False)
def family(cqt: Any) -> Any:
    cqt.subtask(noop)
    return cqt.subtask(moody)


@pytest.fixture(autouse=True)
def good_mood() -> None:
    moods.clear()


def fresh(row: Task) -> Task:
    row.refresh_from_db()
    return row


# --- submit -------------------------------------------------------------------------------------


def test_a_held_task_waits_for_submit() -> None:
    row = echo.delay_args((3,), submit=False)
    assert row.status == Status.PENDING
    assert drain() == []
    row.submit(1, 2)
    assert (row.status, row.args) == (Status.QUEUED, [1, 2, 3])
    drain()
    assert fresh(row).result["args"] == [1, 2, 3]


def test_a_second_submit_is_an_error() -> None:
    row = echo.delay_args(submit=False)
    row.submit()
    for state in ("Queued", "Success"):
        with pytest.raises(DuplicateSubmit, match=f"it is {state}"):
            row.submit()
        drain()
    with pytest.raises(DuplicateSubmit, match="it is Queued"):
        echo.delay().submit()


def test_submit_of_a_revoked_task_does_nothing() -> None:
    row = echo.delay_args(submit=False)
    row.revoke()
    row.submit()
    assert drain() == []
    assert fresh(row).status == Status.REVOKED


def test_submit_checks_what_it_puts_in_front() -> None:
    row = add.delay_args((1, 2), submit=False)
    with pytest.raises(InvalidArguments, match="too many positional"):
        row.submit(3)
    with pytest.raises(InvalidArguments, match=r"args\[0\]: bytes"):
        add.delay_args((1,), submit=False).submit(b"x")
    assert {one.status for one in Task.objects.all()} == {"P"}


def test_a_link_is_submitted_by_its_predecessor_alone() -> None:
    link = add.delay(1).chain(add, 1)
    with pytest.raises(DuplicateSubmit, match="without a predecessor"):
        link.submit()


def test_submit_takes_effect_with_the_commit() -> None:
    row = echo.delay_args(submit=False)
    with transaction.atomic():
        row.submit(1)
        transaction.set_rollback(True)
    assert (fresh(row).status, row.args) == (Status.PENDING, [])
    row.submit(1)
    assert fresh(row).status == Status.QUEUED


# --- retry --------------------------------------------------------------------------------------


def test_retry_runs_it_again_with_its_history() -> None:
    moods.append("bad")
    row = moody.delay()
    drain()
    assert fresh(row).status == Status.FAILURE
    moods.clear()
    row.retry()
    assert row.status == Status.QUEUED
    drain()
    assert (fresh(row).status, row.result, row.error) == (Status.SUCCESS, "good", None)
    assert [error["message"] for error in row.errors] == ["bad"]
    assert row.generation == 1


def test_a_tree_is_retried_at_its_root() -> None:
    moods.append("bad")
    root = family.delay()
    drain()
    assert fresh(root).status == Status.INCOMPLETE
    child = root.subtasks.get(func_name=moody.name)
    with pytest.raises(IllegalTransition, match=rf"Retry its root {root.id}"):
        child.retry()
    moods.clear()
    root.retry()
    drain()
    assert (fresh(root).status, root.result) == (Status.SUCCESS, "good")


@pytest.mark.parametrize("end", ["queued", "success"])
def test_what_has_not_failed_is_not_retried(end: str) -> None:
    row = add.delay(1)
    if end == "success":
        drain()
    with pytest.raises(IllegalTransition, match="cannot be retried"):
        row.retry()


def test_a_revoked_task_is_retried_too() -> None:
    row = add.delay(1)
    row.revoke()
    row.retry()
    drain()
    assert fresh(row).result == 1


def test_a_link_revoked_by_the_failure_comes_back() -> None:
    moods.append("bad")
    row = moody.delay()
    link = row.chain(echo)
    drain()
    assert fresh(link).status == Status.REVOKED
    moods.clear()
    row.retry()
    assert fresh(link).status == Status.PENDING
    drain()
    assert fresh(link).result["args"] == ["good"]


def test_retries_are_counted() -> None:
    row = flaky.delay(4)
    drain()
    assert (fresh(row).status, row.retries, row.attempts, row.result) == ("S", 3, 4, 4)
    assert [error["attempt"] for error in row.errors] == [1, 2, 3]
    assert {error["type"] for error in row.errors} == {"ConnectionError"}
    spent = fail.using(retries=3).delay("no")
    drain(now=3600)
    assert (fresh(spent).status, spent.retries, spent.attempts) == ("F", 3, 4)
    assert len(spent.errors) == 4
    assert "raise ValueError(message)" in spent.errors[-1]["traceback"]


# --- revoke -------------------------------------------------------------------------------------


def test_a_revoked_task_never_starts() -> None:
    row = add.delay(1)
    row.revoke()
    assert (row.status, row.error) == (Status.REVOKED, "Revoked.")
    assert row.finished is not None
    assert drain() == []
    row.revoke()


def test_a_tree_is_revoked_with_what_is_behind_it() -> None:
    root = fan_out.delay(3)
    held = root.chain(noop)
    queued = Task.objects.get(id=root.id)
    drain(queues=["nobody"])
    queued.revoke()
    assert drain() == []
    assert {row.status for row in Task.objects.all()} == {Status.REVOKED}
    assert fresh(held).status == Status.REVOKED


def test_a_revoked_child_settles_its_parent() -> None:
    root = noop.delay()
    child = root.subtask(add, 1)
    child.revoke()
    drain()
    assert (fresh(root).status, fresh(child).status) == (Status.INCOMPLETE, Status.REVOKED)


def test_a_revoke_of_an_ended_task_changes_nothing() -> None:
    row = add.delay(1)
    drain()
    row.revoke()
    assert (fresh(row).status, row.result) == (Status.SUCCESS, 1)


def test_inside_a_transaction_the_verbs_take_effect_with_the_commit() -> None:
    row = add.delay(1)
    moods.append("bad")
    failed = moody.delay()
    with transaction.atomic():
        row.revoke()
        assert fresh(row).status == Status.QUEUED
    assert fresh(row).status == Status.REVOKED
    drain()
    with transaction.atomic():
        failed.retry()
        assert fresh(failed).status == Status.FAILURE
    assert fresh(failed).status == Status.QUEUED
    with transaction.atomic():
        failed.revoke()
        transaction.set_rollback(True)
    assert fresh(failed).status == Status.QUEUED


def test_a_refused_retry_says_so_inside_a_transaction() -> None:
    done = add.delay(1)
    drain()
    for failed_only in (False, True):
        with transaction.atomic(), pytest.raises(IllegalTransition, match="is Success"):
            done.retry(failed_only=failed_only)
    queued = add.delay(1)
    with transaction.atomic():
        queued.revoke()
        queued.retry()
    assert (fresh(queued).status, queued.generation) == (Status.QUEUED, 1)
    queued.revoke()
    with transaction.atomic():
        queued.retry()
        queued.retry()  # decided at the commit: by then it is Queued, which is logged
    assert (fresh(queued).status, queued.generation) == (Status.QUEUED, 2)


# --- on a loop ----------------------------------------------------------------------------------


async def test_the_twins() -> None:
    row = await echo.adelay_args((1,), submit=False)
    await row.asubmit(0)
    link = await row.achain(echo)
    child = await row.asubtask(add, 1, 2)
    assert (link.previous_id, child.parent_id) == (row.id, row.id)
    await row.arevoke()
    await row.arefresh_from_db()
    assert row.status == Status.REVOKED
    await row.aretry()
    assert row.status == Status.QUEUED
    assert await row.aformat_logs() == ""
    assert await row.alogs() == []


async def test_each_verb_names_its_twin_on_a_loop() -> None:
    row = await echo.adelay(1)
    calls: dict[str, Any] = {"chain": (echo,), "subtask": (echo,), "errorback": (print,)}
    for verb in ("submit", "retry", "revoke", "chain", "subtask", "errorback", "format_logs"):
        with pytest.raises(RunningLoop, match=rf"await task\.a{verb}\("):
            getattr(row, verb)(*calls.get(verb, ()))

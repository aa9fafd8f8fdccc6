"""Enqueueing: in the caller's transaction, all or none, and by plain SQL as well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cq.definition.status import Status
from cq.errors import CQError, InvalidArguments, InvalidOption
from cq.models import Stream, Task
from tests.conformance.driving import E, Hand, Q, S, W, by_name, fresh, rung, status
from tests.sampleapp.tasks import add, echo, noop


def test_many_are_one_insert_in_their_order(hand: Hand, bells: list[str]) -> None:
    calls = [((number,), {"second": 1}) for number in range(500)]
    with CaptureQueriesContext(connection) as queries:
        made = add.delay_many(calls)
    assert sum("INSERT INTO cq_task" in query["sql"] for query in queries) == 1
    assert len(queries) == 1
    assert [task.args for task in made] == [[number] for number in range(500)]
    assert len(bells) == 500
    assert [claimed.args for claimed in hand.claim()] == [task.args for task in made]
    assert {claimed.kwargs["second"] for claimed in hand.held.values()} == {1}


def test_signatures_of_other_functions_may_be_among_many(hand: Hand) -> None:
    made = noop.delay_many([((), {}), add.signature(1), echo.using(priority=5).signature("x")])
    assert [task.func_name for task in made] == [noop.name, add.name, echo.name]
    assert next(claimed.func_name for claimed in hand.claim()) == echo.name


@pytest.mark.parametrize(
    "bad", [((object(),), {}), ((1, 2, 3), {}), ((1,), {"third": 1})], ids=["json", "many", "name"]
)
def test_one_bad_call_leaves_none(hand: Hand, bells: list[str], bad: Any) -> None:
    with pytest.raises(InvalidArguments):
        add.delay_many([((1,), {}), bad, ((2,), {})])
    assert (Task.objects.count(), bells) == (0, [])


def test_many_with_relations_are_all_or_none_too(hand: Hand, bells: list[str]) -> None:
    parent = noop.delay()
    bells.clear()
    lost = noop.delay()
    Task.objects.filter(pk=lost.pk).delete()
    bells.clear()
    below = echo.using(parent=parent)
    with pytest.raises(InvalidOption):
        echo.delay_many([below.signature(1), echo.using(parent=lost).signature(2)])
    assert (Task.objects.count(), fresh(parent).children_open, bells) == (1, 0, [])
    made = echo.delay_many([below.signature(number) for number in range(3)])
    assert fresh(parent).children_open == 3
    assert rung(bells, parent, *made)
    assert Stream.objects.get(root=parent.id).tree_open == 4


def test_what_is_rolled_back_never_was_and_never_rings(hand: Hand, bells: list[str]) -> None:
    root = noop.delay()
    bells.clear()
    with transaction.atomic():
        noop.delay()
        echo.delay_many([((1,), {})] * 3)
        root.subtask(echo, "child")
        root.chain(echo, "link")
        transaction.set_rollback(True)
    assert (Task.objects.count(), bells, fresh(root).children_open) == (1, [], 0)
    assert not Stream.objects.exists()
    assert hand.run(root) is S


def test_a_rolled_back_savepoint_takes_only_its_own(hand: Hand, bells: list[str]) -> None:
    with transaction.atomic():
        kept = noop.delay()
        with transaction.atomic():
            noop.delay()
            transaction.set_rollback(True)
        also = noop.delay()
    assert rung(bells, kept, also)
    assert Task.objects.count() == 2


def test_verbs_of_committed_tasks_wait_for_the_commit(hand: Hand) -> None:
    revoked, retried = noop.delay(), noop.delay()
    hand.fail(retried)
    with transaction.atomic():
        revoked.revoke()
        retried.retry()
        Task.objects.filter(pk=revoked.pk).exists()
        assert {fresh(revoked).status, fresh(retried).status} & {E, Q} == set()
    assert [status(revoked), status(retried)] == [E, Q]
    with transaction.atomic():
        retried.revoke()
        transaction.set_rollback(True)
    assert status(retried) is Q


def test_a_task_revoked_in_the_transaction_that_made_it_never_starts(hand: Hand) -> None:
    with transaction.atomic():
        task = noop.delay()
        task.revoke()
    assert hand.claim() == []
    assert status(task) is E


def test_a_row_by_plain_sql_runs(hand: Hand) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO cq_task (func_name) VALUES (%s)", [noop.name])
        cursor.execute(
            "INSERT INTO cq_task (func_name, args, kwargs, priority) VALUES (%s, %s, %s, 5)",
            [add.name, "[1]", '{"second": 2}'],
        )
    first, second = hand.claim()
    assert (first.func_name, first.args, first.kwargs) == (add.name, [1], {"second": 2})
    assert (second.func_name, second.args, second.kwargs, second.root) == (
        noop.name,
        [],
        {},
        second.id,
    )
    assert hand.run(first, lambda cqt: 3) is S
    assert hand.run(second, lambda cqt: [None, cqt.subtask(echo, "child")][0]) is W
    hand.run(by_name(second.id)["child"])
    row = fresh(second.id)
    assert (row.status, row.attempts, row.errors) == (S, 1, [])
    assert row.submitted <= row.started <= row.finished


@pytest.mark.parametrize(
    "assignment",
    [
        "status = 'X'",
        "status = 'R'",
        "status = 'S'",
        "status = 'W'",
        "claim_token = id",
        "children_open = -1",
        "attempts = -1",
        "priority = 101",
    ],
)
def test_the_database_itself_refuses_rows_that_cannot_be(hand: Hand, assignment: str) -> None:
    task = noop.delay()
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE cq_task SET {assignment} WHERE id = %s", [task.id.hex])
    assert status(task) is Q


def test_the_order_of_a_claim_is_queue_priority_due_time_and_age(hand: Hand) -> None:
    now = timezone.now()
    made = {}
    for name, queue, priority, age in [
        ("low", "default", -5, 0),
        ("young", "default", 0, 1),
        ("old", "default", 0, 60),
        ("older", "default", 0, 3600),
        ("high", "default", 5, 0),
        ("other", "first", 0, 0),
        ("unserved", "nobody", 100, 3600),
    ]:
        run_at = now - timedelta(seconds=age)
        made[name] = echo.using(queue=queue, priority=priority, run_after=run_at).delay(name)
    order = [claimed.args[0] for claimed in hand.claim(3, queues=["first", "default"])]
    assert order == ["other", "high", "older"]
    order = [claimed.args[0] for claimed in hand.claim(9, queues=["first", "default"])]
    assert order == ["old", "young", "low"]
    assert status(made["unserved"]) is Q
    assert [claimed.args[0] for claimed in hand.claim()] == ["unserved"]


def test_priorities_hold_over_all_queues_and_no_queue_starves(hand: Hand) -> None:
    echo.using(queue="a").delay_many([(("a",), {})] * 60)
    echo.using(queue="b").delay_many([(("b",), {})] * 60)
    urgent = echo.using(queue="c", priority=1).delay("c")
    assert hand.claim(1)[0].id == urgent.id
    seen = {hand.claim(1)[0].args[0] for _ in range(40)}
    assert seen == {"a", "b"}


def test_a_claim_has_room_for_kinds(hand: Hand) -> None:
    from cq.models.transitions import Want
    from cq.workflow.claim import claim

    noop.delay_many([((), {})] * 5)
    echo.delay_many([((1,), {})] * 5)
    wants = [Want((noop.name,), 2), Want((echo.name,), 3), Want((add.name,), 9)]
    taken = [claimed.func_name for claimed in claim(hand.row.pk, wants)]
    assert (taken.count(noop.name), taken.count(echo.name), len(taken)) == (2, 3, 5)
    assert claim(hand.row.pk, []) == []


def test_the_next_due_time_is_known(hand: Hand) -> None:
    from cq.workflow.claim import seconds_to_next

    assert seconds_to_next() is None
    noop.delay()
    assert seconds_to_next() is None, "what is due is no timer's business"
    noop.using(run_after=50, queue="slow").delay()
    noop.using(run_after=100, priority=9).delay()
    assert 49 < seconds_to_next() <= 50
    assert 99 < seconds_to_next(["default"]) <= 100
    assert seconds_to_next(["nobody"]) is None


@pytest.mark.parametrize("merged", [False, True])
def test_a_refused_call_writes_nothing(hand: Hand, merged: bool) -> None:
    with pytest.raises(CQError):
        echo.using(unique_key="k" if merged else None).delay(object())
    assert Task.objects.count() == 0
    assert Status.QUEUED == "Q"

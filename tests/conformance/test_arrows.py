"""
What each arrow of the state machine does beside moving its row: T1 to T12, of tasks that run.

The arrows themselves are walked in test_transitions.py.
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from cq import conf
from cq.definition.outcome import Succeeded
from cq.errors import DuplicateSubmit
from cq.models import Stream, Task
from cq.workflow.rescue import rescue_tasks
from tests.conformance.driving import (
    E,
    F,
    Hand,
    I,
    L,
    P,
    Q,
    R,
    S,
    W,
    Y,
    by_name,
    crashed,
    errorback_calls,
    fresh,
    line,
    released,
    retrying,
    rung,
    status,
)
from tests.sampleapp.tasks import add, echo, noop, note_error

SECOND = timedelta(seconds=1)


def test_t1_delay_makes_a_queued_row_and_rings_after_the_commit(
    hand: Hand, bells: list[str]
) -> None:
    with transaction.atomic():
        task = add.using(queue="low", priority=3, result_ttl=5, retries=2).delay(1, second=2)
        assert not bells
    assert rung(bells, task)
    row = fresh(task)
    assert [row.status, row.args, row.kwargs, row.queue, row.priority] == [
        Q,
        [1],
        {"second": 2},
        "low",
        3,
    ]
    assert [row.result_ttl, row.max_retries, row.attempts, row.root_id] == [5, 2, 0, None]
    assert abs(row.run_at - row.submitted) < SECOND
    assert (task.status, task.run_at, task.submitted) == (row.status, row.run_at, row.submitted)
    assert not Stream.objects.exists()


def test_t1_a_delayed_row_rings_so_that_a_timer_is_set(hand: Hand, bells: list[str]) -> None:
    task = noop.using(run_after=60).delay()
    later = noop.using(run_after=90)
    assert rung(bells, task)
    assert 59 < (fresh(task).run_at - timezone.now()).total_seconds() <= 60
    assert hand.claim() == []
    first, *_ = later.delay_many([((), {})] * 3)
    assert rung(bells, first), "one bell for all that are to come"


def test_t2_chain_holds_a_row_that_its_parent_waits_for(hand: Hand, bells: list[str]) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a")][0])
    child = by_name(root)["a"]
    bells.clear()
    link = child.chain(echo, "b")
    assert (link.status, link.previous_id, link.parent_id) == (P, child.id, root.id)
    assert (link.root_id, link.depth, fresh(root).children_open) == (root.id, 1, 2)
    assert Stream.objects.get(root=root.id).tree_open == 3
    assert rung(bells, child), "a claim may have passed over the row while it was locked"
    held = noop.delay_args(submit=False)
    assert (held.status, rung(bells)) == (P, True)
    hand.claim()
    assert P in {status(link), status(held)}


def test_t3_a_released_successor_carries_the_result(hand: Hand, bells: list[str]) -> None:
    task = noop.delay()
    link, plain = task.chain(add, second=1), task.chain(noop)
    hand.claim()
    bells.clear()
    hand.run(task, lambda cqt: 41)
    assert rung(bells, link, plain)
    row = fresh(link)
    assert (row.status, row.previous_result, row.pass_result) == (Q, 41, True)
    assert (fresh(plain).previous_result, fresh(plain).pass_result) == (41, False)
    claimed = hand.take(link)
    assert (claimed.previous, claimed.previous_result, claimed.pass_result) == (task.id, 41, True)


def test_t3_submit_puts_arguments_in_front(hand: Hand, bells: list[str]) -> None:
    task = echo.delay_args((3,), {"x": 4}, submit=False)
    task.submit(1, 2)
    assert rung(bells, task)
    assert (task.args, fresh(task).args, fresh(task).kwargs) == ([1, 2, 3], [1, 2, 3], {"x": 4})
    with pytest.raises(DuplicateSubmit, match="Queued"):
        task.submit()
    stopped = noop.delay_args(submit=False)
    stopped.revoke()
    stopped.submit()
    assert status(stopped) is E


def test_t4_a_claim_gives_a_token_a_worker_and_a_new_attempt(hand: Hand) -> None:
    task = add.delay(1, 2)
    claimed = hand.take(task)
    row = fresh(task)
    assert (row.claim_token, row.worker_id, row.attempts) == (claimed.token, hand.row.pk, 1)
    assert row.started is not None
    assert (claimed.args, claimed.kwargs, claimed.attempt) == ([1, 2], {}, 1)
    hand.end(claimed, retrying())
    again = hand.take(task)
    assert (again.attempt, again.retries) == (2, 1)
    assert again.token != claimed.token


def test_t5_success_stores_the_result_and_uses_the_token_up(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    lines = [line(claimed, "one"), line(claimed, "two")]
    assert hand.end(claimed, Succeeded(result={"a": [1, None]}), lines=lines) is S
    row = fresh(task)
    assert (row.result, row.error, row.claim_token) == ({"a": [1, None]}, None, None)
    assert (row.done_token, row.worker_id, row.crashes) == (claimed.token, None, 0)
    assert row.finished >= row.started
    assert [entry["message"] for entry in row.logs] == ["one", "two"]
    assert Stream.objects.get(root=task.id).open is False


def test_t6_subtasks_become_rows_with_their_parent(hand: Hand, bells: list[str]) -> None:
    root = noop.delay()
    hand.claim()
    bells.clear()

    def body(cqt):
        first = cqt.subtask(echo, "a")
        first.chain(echo, "b").chain(echo, "c")
        cqt.subtask(echo, "d")

    assert hand.run(root, body) is W
    rows = by_name(root)
    assert rung(bells, rows["a"], rows["d"])
    assert {name: row.status for name, row in rows.items()} == {"a": Q, "b": P, "c": P, "d": Q}
    assert (fresh(root).children_open, fresh(root).finished) == (4, None)
    assert (rows["b"].previous_id, rows["c"].previous_id) == (rows["a"].id, rows["b"].id)
    assert Stream.objects.get(root=root.id).tree_open == 5


def test_t7_a_retry_is_due_later_and_keeps_the_error(hand: Hand, bells: list[str]) -> None:
    task = noop.delay()
    hand.claim()
    bells.clear()
    assert hand.end(task, retrying("first", delay=30)) is Y
    assert rung(bells, task)
    row = fresh(task)
    assert (row.retries, row.error, row.claim_token) == (1, "first", None)
    assert 29 < (row.run_at - timezone.now()).total_seconds() <= 30
    assert [(entry["attempt"], entry["message"]) for entry in row.errors] == [(1, "first")]
    assert hand.claim() == []
    Task.objects.filter(pk=task.pk).update(run_at=timezone.now())
    assert hand.end(task, retrying("second")) is Y
    assert hand.run(task) is S
    row = fresh(task)
    assert ([entry["message"] for entry in row.errors], row.error) == (["first", "second"], None)


def test_t8_a_failure_calls_errorbacks_and_ends_what_waited(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a").errorback(note_error, 1)][0])
    child = by_name(root)["a"]
    link, forced = child.chain(echo, "link"), child.chain(echo, "forced", force_chain=True)
    root.errorback(note_error)
    assert hand.fail(child, "broken") is F
    row = fresh(child)
    assert (row.error, row.errors[0]["message"], row.result) == ("broken", "broken", None)
    assert [status(link), status(forced), status(root)] == [E, Q, W]
    assert (errorback_calls(child), errorback_calls(root)) == (1, 0)
    assert fresh(forced).previous_result is None
    hand.run(forced)
    assert (status(root), fresh(root).error, errorback_calls(root)) == (I, "broken", 1)
    assert Stream.objects.get(root=root.id).tree_open == 2, "the two errorbacks"
    entry = json.loads(json.dumps(fresh(child).errorbacks))[0]
    assert (entry["path"], entry["args"]) == (note_error.path, [1])


def test_t9_a_release_is_not_charged(hand: Hand, bells: list[str]) -> None:
    task = noop.delay()
    hand.claim()
    bells.clear()
    assert hand.end(task, released()) is Q
    assert rung(bells, task)
    row = fresh(task)
    assert (row.attempts, row.releases, row.retries, row.crashes) == (0, 1, 0, 0)
    assert (row.worker_id, row.claim_token) == (None, None)


def test_t10_what_a_dead_worker_held_runs_again_charged(hand: Hand, bells: list[str]) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    hand.die()
    bells.clear()
    assert rescue_tasks() == 1
    assert rung(bells, task)
    row = fresh(task)
    assert (row.crashes, row.attempts, row.claim_token, row.worker_id) == (1, 1, None, None)
    other = Hand()
    again = other.take(task)
    assert (again.crashes, again.attempt) == (1, 2)
    assert hand.end(claimed, Succeeded(result="late")) is None, "the first attempt is void"
    assert status(task) is R
    other.die()
    rescue_tasks()
    row = fresh(task)
    assert (row.crashes, row.releases) == (1, 1), "a suspect is not to blame"
    assert (row.run_at - timezone.now()).total_seconds() > 0.5, "a pause, by now"
    crash = Hand()
    Task.objects.filter(pk=task.pk).update(run_at=timezone.now(), crashes=1)
    assert crash.end(task, crashed()) is Q
    assert fresh(task).crashes == 2


@pytest.mark.parametrize("at_most_once", [True, False])
def test_t11_a_spent_budget_is_lost(hand: Hand, at_most_once: bool) -> None:
    root = noop.delay()
    task = root.subtask(echo, "a")
    task.errorback(note_error)
    link = task.chain(echo, "b")
    hand.run(root)
    hand.take(task)
    Task.objects.filter(pk=task.pk).update(
        crashes=0 if at_most_once else 2,
        releases=conf.current().max_releases,
        at_most_once=at_most_once,
    )
    hand.die()
    assert rescue_tasks() == 1
    row = fresh(task)
    assert (row.status, row.claim_token, row.crashes) == (L, None, 1 if at_most_once else 3)
    assert "died" in row.error
    assert [status(link), status(root), errorback_calls(task)] == [E, I, 1]
    assert fresh(root).error == row.error


def test_t12_the_last_child_ends_its_parent_with_all_that_follows(
    hand: Hand, bells: list[str]
) -> None:
    root = noop.delay()
    link = root.chain(add, second=1)
    hand.run(root, lambda cqt: cqt.subtask(echo, "a"))
    child = by_name(root)["a"]
    hand.claim()
    bells.clear()
    hand.run(child, lambda cqt: 41)
    row = fresh(root)
    assert (row.status, row.result, row.children_open) == (S, 41, 0)
    assert rung(bells, link)
    assert fresh(link).previous_result == 41
    hand.run(link)
    assert Stream.objects.get(root=root.id).open is False

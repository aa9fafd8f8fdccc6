"""Chains: when a link starts, with what, and who waits for it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from cq.definition.outcome import Succeeded
from cq.definition.status import Status
from cq.errors import InvalidArguments, InvalidOption
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
    by_name,
    errorback_calls,
    fresh,
    retrying,
    rung,
    status,
)
from tests.sampleapp.tasks import add, echo, noop, note_error


def ended_as(hand: Hand, target: Status, **options: Any) -> Task:
    """A root that the engine has brought to this terminal status."""
    task = noop.delay_args(**options)
    if target is S:
        hand.run(task, lambda cqt: 41)
    elif target is F:
        hand.fail(task)
    elif target is I:
        hand.run(task, lambda cqt: [None, cqt.subtask(echo, "a")][0])
        hand.fail(by_name(task)["a"])
    elif target is L:
        other = Hand()
        other.take(task)
        Task.objects.filter(pk=task.pk).update(at_most_once=True)
        other.die()
        rescue_tasks()
    else:
        task.revoke()
    assert status(task) is target
    return task


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "passes"),
    [
        (add, (), {"second": 1}, True),
        (add, (1, 2), {}, False),
        (add, (1,), {}, True),
        (noop, (), {}, False),
        (echo, ("x",), {}, True),
        (echo, ("x",), {"pass_result": False}, False),
        (add, (1,), {"pass_result": False}, False),
    ],
)
def test_a_result_is_passed_where_it_fits_or_as_said(
    hand: Hand, fn: Any, args: Any, kwargs: Any, passes: bool
) -> None:
    task = noop.delay()
    link = task.chain(fn, *args, **kwargs)
    hand.run(task, lambda cqt: 41)
    claimed = hand.take(link)
    assert (claimed.pass_result, claimed.previous_result) == (passes, 41)
    hand.run(link)


def test_a_link_that_cannot_be_called_is_refused_at_once(hand: Hand) -> None:
    task = noop.delay()
    with pytest.raises(InvalidArguments):
        task.chain(noop, pass_result=True)
    with pytest.raises(InvalidArguments):
        task.chain(noop, 1)
    assert Task.objects.count() == 1


@pytest.mark.parametrize("target", [S, F, I, L, E], ids=lambda status: status.label)
@pytest.mark.parametrize("force", [False, True], ids=["plain", "forced"])
def test_a_link_onto_an_ended_task_is_settled_at_once(
    hand: Hand, bells: list[str], target: Status, force: bool
) -> None:
    task = ended_as(hand, target)
    bells.clear()
    link = task.chain(echo, "link", force_chain=force)
    runs = target is S or (force and target is not E)
    assert status(link) is (Q if runs else E)
    assert link.status == status(link), "the returned object says so too"
    assert rung(bells, *([link] if runs else []))
    assert fresh(link).previous_result == (41 if target is S else None)
    assert status(task) is target
    stream = Stream.objects.get(root=task.id)
    assert (stream.tree_open, stream.open) == (int(runs), runs)
    if runs:
        hand.run(link)
        assert Stream.objects.get(root=task.id).open is False


def test_a_forced_link_runs_behind_one_that_was_called_off(hand: Hand) -> None:
    task = ended_as(hand, F)
    called_off = task.chain(echo, 1)
    forced = called_off.chain(echo, 2, force_chain=True)
    assert [status(called_off), status(forced)] == [E, Q]


@pytest.mark.parametrize("first", [Q, R, S], ids=lambda status: status.label)
def test_a_parent_waits_for_a_subtask_and_what_is_chained_behind_it(
    hand: Hand, first: Status
) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.subtask(echo, "a"), cqt.subtask(echo, "keeps it open"), 0][2])
    rows = by_name(root)
    if first is not Q:
        hand.claim()
    if first is S:
        hand.run(rows["a"])
    link = rows["a"].chain(echo, "b")
    assert link.parent_id == root.id
    hand.run(rows["a"]) if first is not S else None
    hand.run(rows["keeps it open"])
    assert status(root) is W
    hand.run(link)
    assert status(root) is S


def test_a_link_onto_a_subtask_of_an_ended_parent_runs_for_itself(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a")][0])
    child = by_name(root)["a"]
    hand.run(child)
    before = Task.objects.filter(pk=root.pk).values().get()
    link = child.chain(echo, "late")
    assert (link.status, link.parent_id, link.root_id) == (Q, None, root.id)
    assert Stream.objects.get(root=root.id).tree_open == 1
    hand.fail(link)
    assert Task.objects.filter(pk=root.pk).values().get() == before
    assert Stream.objects.get(root=root.id).open is False


def test_a_link_of_the_running_task_itself_is_waited_for_by_its_parent(hand: Hand) -> None:
    root = noop.delay()
    after_root = noop

    def body(cqt):
        cqt.chain(after_root)
        cqt.subtask(echo, "child")

    def child_body(cqt):
        cqt.chain(echo, "behind").chain(echo, "last")

    assert hand.run(root, body) is W
    assert Task.objects.get(previous=root).parent_id is None
    child = by_name(root)["child"]
    assert hand.run(child, child_body) is S
    rows = by_name(root)
    assert (rows["behind"].parent_id, rows["behind"].depth) == (root.id, 1)
    assert [status(row) for row in (root, rows["behind"], rows["last"])] == [W, Q, P]
    assert fresh(root).children_open == 2
    hand.run(rows["behind"])
    hand.run(rows["last"])
    assert status(root) is S
    hand.run_all()


def test_a_link_behind_a_failed_subtask_ends_its_parent_too(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a").chain(echo, "b")][0])
    rows = by_name(root)
    hand.fail(rows["a"], "broken")
    assert [status(rows["b"]), status(root)] == [E, I]
    assert (fresh(root).error, fresh(root).children_failed) == ("broken", 2)


def test_three_links_hand_their_results_on(hand: Hand) -> None:
    task = noop.delay()
    second = task.chain(add, second=1)
    third = second.chain(add, second=1)
    for number in (1, 2, 3):
        (claimed,) = hand.claim()
        hand.run(claimed, lambda cqt, number=number: number * 10)
    assert [status(row) for row in (task, second, third)] == [S, S, S]
    assert [fresh(row).previous_result for row in (second, third)] == [10, 20]


def test_a_rolled_back_link_never_was(hand: Hand, bells: list[str]) -> None:
    task = ended_as(hand, S)
    bells.clear()
    with transaction.atomic():
        task.chain(echo, "link")
        transaction.set_rollback(True)
    assert (Task.objects.count(), bells) == (1, [])
    assert not Stream.objects.exists()


def test_a_link_onto_nothing_is_refused(hand: Hand) -> None:
    task = noop.delay()
    hand.run(task)
    Task.objects.all().delete()
    with pytest.raises(InvalidOption, match="No task"):
        task.chain(echo, "link")


# --- errorbacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [S, F, I, L, E], ids=lambda status: status.label)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_errorback_is_called_once_on_a_bad_end_but_a_revoke(
    hand: Hand, target: Status, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if when == "before":
        made = noop.delay

        def with_errorback(*args: Any, **kwargs: Any) -> Task:
            task = made()
            task.errorback(note_error, "x")
            return task

        monkeypatch.setattr(noop, "delay_args", with_errorback, raising=False)
    task = ended_as(hand, target)
    if when == "after":
        task.errorback(note_error, "x")
    assert errorback_calls(task) == int(target in (F, I, L))
    if target in (F, I, L):
        call = Task.objects.get(func_name="cq.tasks.call_errorback")
        assert (call.root_uuid, call.status, call.args[1]) == (task.id, Q, fresh(task).error)
        assert call.args[2]["args"] == ["x"]
        stream = Stream.objects.get(root=task.id)
        assert (stream.tree_open, stream.open) == (1, True)
        hand.run_all()
    assert not Stream.objects.filter(open=True).exists()


def test_an_errorback_of_an_open_task_is_kept_in_its_row(hand: Hand, bells: list[str]) -> None:
    task = noop.delay()
    bells.clear()
    task.errorback(note_error, 1)
    task.errorback(note_error, 2)
    assert rung(bells, task, task), "a claim may have passed over the row while it was locked"
    assert [entry["args"] for entry in fresh(task).errorbacks] == [[1], [2]]
    assert fresh(task).errorbacks == task.errorbacks
    hand.fail(task)
    assert errorback_calls(task) == 2
    hand.run_all()


def test_a_success_after_retries_calls_no_errorback(hand: Hand) -> None:
    task = noop.delay()
    task.errorback(note_error)
    hand.end(task, retrying())
    hand.end(task, Succeeded())
    assert errorback_calls(task) == 0

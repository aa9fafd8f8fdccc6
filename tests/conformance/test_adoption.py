"""Adoption: a body returns a task that it delayed, and that one's tree becomes part of its own."""

from __future__ import annotations

from typing import Any

import pytest

from cq.definition.outcome import Succeeded
from cq.definition.status import Status
from cq.models import LogLine, Progress, Stream, Task
from cq.models.progress_rows import ProgressRow, write_progress
from cq.models.streams import append
from cq.workflow.completion import complete
from cq.workflow.transaction import engine_transaction
from tests.conformance.driving import (
    E,
    F,
    Hand,
    I,
    P,
    Q,
    R,
    S,
    W,
    by_name,
    check_invariants,
    errorback_calls,
    failure,
    fresh,
    line,
    retrying,
    rung,
    stale,
    status,
)
from tests.sampleapp.tasks import add, echo, noop, note_error


def lines_of(root: Task) -> list[tuple[int, str]]:
    return list(LogLine.objects.filter(root=root.id).order_by("seq").values_list("seq", "message"))


def saying(*messages: str, returning: Any = None):
    """A body that logs and returns."""

    def body(cqt):
        for message in messages:
            cqt.log(message)
        return returning() if callable(returning) else returning

    return body


@pytest.mark.parametrize("target", [Q, R, S, F, E], ids=lambda status: status.label)
def test_a_delayed_task_is_adopted_whatever_it_is_doing(
    hand: Hand, bells: list[str], target: Status
) -> None:
    parent, child = noop.delay(), echo.delay("c")
    hand.take(parent)
    if target is Q:
        claimed = hand.held.pop(child.id)
        hand.end(claimed, retrying())
    elif target is S:
        hand.run(child, lambda cqt: "early")
    elif target is F:
        hand.fail(child, "broken")
    elif target is E:
        child.revoke()
    bells.clear()
    assert hand.run(parent, lambda cqt: child) is W
    row = fresh(child)
    assert (row.parent_id, row.root_id, row.depth) == (parent.id, parent.id, 1)
    if target in (Q, R):
        assert status(parent) is W
        assert Stream.objects.get(root=parent.id).tree_open == 2
        assert rung(bells, *([child] if target is Q else []))
        hand.run(child, lambda cqt: "late")
    parents = fresh(parent)
    if target in (F, E):
        assert (parents.status, parents.error) == (I, row.error)
    else:
        assert (parents.status, parents.result) == (S, "early" if target is S else "late")
    assert not Stream.objects.filter(open=True).exists()


@pytest.mark.parametrize("target", [Q, S], ids=lambda status: status.label)
def test_the_historic_chain_is_adopted_whole(hand: Hand, target: Status) -> None:
    parent = noop.delay()

    def body(cqt):
        link = add.delay(3).chain(echo, "link")
        if target is S:
            first = Task.objects.get(pk=link.previous_id)
            Hand().run(first, lambda cqt: 2)
        return link

    assert hand.run(parent, body) is W
    head, link = Task.objects.filter(root=parent.id).order_by("id")
    assert {head.parent_id, link.parent_id} == {parent.id}
    assert {head.depth, link.depth} == {1}
    hand.run_all({head.id: lambda cqt: 2, link.id: lambda cqt: {"got": cqt.previous.result}})
    assert (status(parent), fresh(parent).result) == (S, {"got": 2})


def test_an_adopted_head_is_awaited_with_what_is_behind_it(hand: Hand) -> None:
    parent = noop.delay()

    def body(cqt):
        head = echo.delay("head")
        head.chain(echo, "behind")
        return head

    hand.run(parent, body)
    rows = by_name(parent)
    hand.run(rows["head"], lambda cqt: "result")
    assert status(parent) is W
    hand.fail(rows["behind"], "broken")
    assert (status(parent), fresh(parent).error, fresh(parent).result) == (I, "broken", "result")


def test_an_adopted_tree_moves_with_its_lines_behind_those_of_the_adopter(hand: Hand) -> None:
    grand, child = noop.delay(), echo.delay("c")
    hand.run(grand, lambda cqt: [cqt.log("g1"), cqt.subtask(echo, "parent")][1])
    parent = by_name(grand)["parent"]
    hand.run(child, lambda cqt: [cqt.log("c1"), cqt.log("c2"), cqt.subtask(echo, "c/a"), None][3])
    first = by_name(child)["c/a"]
    claimed = hand.take(first)
    with engine_transaction() as db:
        append(db, [line(claimed, "a1")])
        write_progress(db, [ProgressRow(first.id, claimed.token, child.id, 1, 2, "half")])
    assert lines_of(child) == [(1, "c1"), (2, "c2"), (3, "a1")]
    assert hand.run(parent, saying("p1", returning=lambda: child)) is W
    assert lines_of(child) == []
    assert lines_of(grand) == [(1, "g1"), (2, "c1"), (3, "c2"), (4, "a1"), (5, "p1")]
    assert not Stream.objects.filter(root=child.id).exists()
    assert Stream.objects.get(root=grand.id).tree_open == 4
    row = fresh(first)
    assert (row.root_id, row.depth, row.parent_id) == (grand.id, 3, child.id)
    assert Progress.objects.get(task=first.id).root == grand.id
    hand.end(claimed, Succeeded(result="deep"), lines=[line(claimed, "a2")])
    assert lines_of(grand)[-1] == (6, "a2")
    assert [status(row) for row in (first, child, parent, grand)] == [S, S, S, S]


def test_a_lines_tree_is_read_from_its_row(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    hand.claim()
    claimed = hand.held[child.id]
    hand.run(parent, lambda cqt: child)
    with engine_transaction() as db:
        append(db, [line(claimed, "after the adoption")])
        write_progress(db, [ProgressRow(child.id, claimed.token, claimed.root, 1, None, "")])
    assert lines_of(parent) == [(1, "after the adoption")]
    assert Progress.objects.get(task=child.id).root == parent.id
    assert not Stream.objects.filter(root=child.id).exists()
    hand.run(claimed)


def test_errorbacks_of_an_adopted_tree_are_not_awaited(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    child.errorback(note_error)
    hand.take(parent)
    hand.fail(child, "broken")
    assert hand.run(parent, lambda cqt: child) is W
    call = Task.objects.get(func_name="cq.tasks.call_errorback")
    assert (status(parent), call.parent_id, call.root_id) == (I, None, parent.id)
    assert Stream.objects.get(root=parent.id).tree_open == 1
    hand.run(call)
    assert Stream.objects.get(root=parent.id).open is False


def test_a_void_attempt_adopts_nothing(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    claimed = hand.take(parent)
    assert hand.end(stale(claimed), Succeeded(adopts=child.id)) is None
    assert (fresh(child).root_id, status(parent)) == (None, R)
    hand.run(claimed)


def test_somebody_elses_child_is_refused(hand: Hand) -> None:
    parent, other = noop.delay(), noop.delay()
    child = other.subtask(echo, "c")
    assert hand.run(parent, lambda cqt: child) is F
    assert "another parent" in fresh(parent).error
    assert fresh(child).parent_id == other.id
    hand.run(other)


def test_ones_own_root_is_refused(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a")][0])
    assert hand.run(by_name(root)["a"], lambda cqt: root) is F
    assert status(root) is I


def test_of_two_adopters_the_second_fails(hand: Hand) -> None:
    first, second, child = noop.delay(), noop.delay(), echo.delay("c")
    hand.claim()
    batch = [hand.ran(parent, lambda cqt: child) for parent in (first, second)]
    assert complete(batch) == {first.id: W, second.id: F}
    hand.run(child)
    assert [status(first), status(second)] == [S, F]


def test_a_child_of_ones_own_may_be_returned_as_a_row(hand: Hand) -> None:
    root = noop.delay()
    child = root.subtask(echo, "mine")
    hand.claim()
    assert hand.run(root, lambda cqt: child) is W
    assert fresh(root).children_open == 1
    hand.run(child, lambda cqt: "its result")
    assert (status(root), fresh(root).result) == (S, "its result")


def test_an_adoption_too_deep_is_refused(hand: Hand, settings: Any) -> None:
    settings.CQ = {"MAX_DEPTH": 3}
    parent, child = noop.delay(), noop.delay()
    below = child.subtask(echo, "1").subtask(echo, "2")
    assert below.depth == 2
    assert hand.run(parent, lambda cqt: child) is F
    assert "MAX_DEPTH" in fresh(parent).error
    child.revoke()


def test_an_adopted_tree_is_revoked_with_its_new_root(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    link = child.chain(echo, "link")
    hand.run(parent, lambda cqt: child)
    assert status(link) is P
    parent.revoke()
    assert [status(row) for row in (parent, child, link)] == [E, E, E]


def test_adopting_beside_subtasks_waits_for_all(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    hand.run(parent, lambda cqt: [cqt.subtask(echo, "a"), child][1])
    assert fresh(parent).children_open == 2
    hand.run(child, lambda cqt: "chosen")
    assert status(parent) is W
    hand.run(by_name(parent)["a"])
    assert (status(parent), fresh(parent).result) == (S, "chosen")


def test_a_link_behind_an_adopted_end_closes_the_tree_again(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c")
    hand.take(parent)
    hand.run(child)
    hand.run(parent, lambda cqt: child)
    late = child.chain(echo, "late")
    assert (late.root_id, late.parent_id) == (parent.id, None)
    assert Stream.objects.get(root=parent.id).tree_open == 1
    hand.run(late)
    assert Stream.objects.get(root=parent.id).open is False


# --- trees that move along with what others do to them --------------------------------------------


def test_a_link_behind_a_child_of_an_ended_parent_is_adopted_as_a_head(hand: Hand) -> None:
    parent, tree = noop.delay(), noop.delay()
    hand.take(parent)
    hand.run(tree, lambda cqt: [cqt.subtask(echo, "child")][:0])
    child = by_name(tree)["child"]
    hand.run(child)
    late = child.chain(echo, "late")
    assert (late.root_id, late.parent_id, late.depth) == (tree.id, None, 0)
    hand.run(parent, lambda cqt: tree)
    row = fresh(late)
    assert (row.root_id, row.parent_id, row.depth) == (parent.id, parent.id, 1)
    hand.run(late, lambda cqt: [cqt.subtask(echo, "below")][:0])
    check_invariants()
    hand.run_all()
    assert status(parent) is S


@pytest.mark.parametrize("adopter_first", [True, False], ids=["adopter first", "adopted first"])
@pytest.mark.parametrize("growing", [True, False], ids=["with children", "alone"])
def test_a_task_may_end_in_the_batch_that_adopts_it(
    hand: Hand, adopter_first: bool, growing: bool
) -> None:
    parent, child = noop.delay(), noop.delay()
    made = child.errorback(note_error, "told").chain(echo, "behind")
    batch = [
        hand.ran(parent, saying("above", returning=lambda: child)),
        hand.ran(child, lambda cqt: cqt.subtask(echo, "x") if growing else [cqt.log("it"), 7][1]),
    ]
    batch[1].stores_result = False
    complete(batch if adopter_first else batch[::-1])
    check_invariants()
    row = fresh(child)
    assert (row.root_id, row.parent_id, row.depth) == (parent.id, parent.id, 1)
    assert Stream.objects.get().root == parent.id
    if growing:
        below = by_name(parent)["x"]
        assert (below.parent_id, below.depth) == (child.id, 2)
        hand.run(below, lambda cqt: 7)
    assert [status(row) for row in (child, made, parent)] == [S, Q, W]
    hand.run(made)
    assert (status(parent), fresh(parent).result) == (S, 7)
    assert not Stream.objects.filter(open=True).exists()


def test_a_failure_in_the_batch_that_adopts_it_is_counted_and_told_once(hand: Hand) -> None:
    parent, child = noop.delay(), echo.delay("c").errorback(note_error, "told")
    complete([hand.ran(parent, lambda cqt: child), hand.ending(child, failure("broken"))])
    check_invariants()
    row = fresh(parent)
    assert (row.status, row.error, row.children_failed) == (I, "broken", 1)
    assert errorback_calls(child) == 1
    assert Task.objects.filter(root=parent.id).count() == 2
    hand.run_all()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)], ids=str)
def test_adoptions_of_one_batch_may_nest(hand: Hand, order: tuple[int, ...]) -> None:
    top, middle, low = noop.delay(), noop.delay(), noop.delay()
    batch = [
        hand.ran(top, saying("top", returning=lambda: middle)),
        hand.ran(middle, saying("middle", returning=lambda: low)),
        hand.ran(low, lambda cqt: [cqt.log("low"), cqt.subtask(echo, "leaf")][1]),
    ]
    complete([batch[number] for number in order])
    check_invariants()
    assert [(row.depth, row.root_uuid) for row in map(fresh, (top, middle, low))] == [
        (depth, top.id) for depth in range(3)
    ]
    assert sorted(message for _, message in lines_of(top)) == ["low", "middle", "top"]
    assert Stream.objects.get().root == top.id
    hand.run(by_name(top)["leaf"], lambda cqt: "from below")
    assert (status(top), fresh(top).result) == (S, "from below")


def test_two_of_one_batch_cannot_adopt_each_other(hand: Hand) -> None:
    first, second = noop.delay(), noop.delay()
    hand.claim()
    complete([hand.ran(first, lambda cqt: second), hand.ran(second, lambda cqt: first)])
    assert "belongs to another parent" in fresh(second).error
    assert [status(first), status(second)] == [I, F]


def test_t19_runs_a_failed_child_again_that_is_older_than_its_adopter(hand: Hand) -> None:
    older = noop.delay()
    hand.take(older)
    adopter = noop.delay()
    hand.run(adopter, lambda cqt: older)
    for _ in range(2):
        hand.fail(older)
        assert status(adopter) is I
        fresh(adopter).retry(failed_only=True)
        assert [status(adopter), status(older)] == [W, Q]
    hand.run(older, lambda cqt: "at last")
    assert (status(adopter), fresh(adopter).result) == (S, "at last")

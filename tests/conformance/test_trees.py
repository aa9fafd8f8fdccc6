"""Trees: how parents wait, what travels up, and who counts."""

from __future__ import annotations

from uuid import UUID

import pytest

from cq.definition.outcome import Succeeded
from cq.definition.status import Status
from cq.errors import InvalidOption
from cq.models import Stream, Task
from cq.workflow.completion import complete
from tests.conformance.driving import (
    E,
    F,
    Hand,
    I,
    Q,
    R,
    S,
    W,
    by_name,
    failure,
    fresh,
    retrying,
    status,
)
from tests.sampleapp.tasks import add, echo, noop


def echoing(*names: str):
    """A body that plans one `echo` for each name."""

    def body(cqt):
        for name in names:
            cqt.subtask(echo, name)

    return body


def test_a_tree_of_three_levels_settles_from_the_leaves(hand: Hand) -> None:
    root = noop.delay()
    assert hand.run(root, echoing("a", "b")) is W
    rows = by_name(root)
    assert hand.run(rows["a"], echoing("a1", "a2")) is W
    assert hand.run(rows["b"]) is S
    assert fresh(root).children_open == 1
    rows = by_name(root)
    assert (rows["a1"].depth, rows["a1"].root_id, rows["a1"].parent_id) == (
        2,
        root.id,
        rows["a"].id,
    )
    assert hand.run(rows["a1"]) is S
    assert (status(root), status(rows["a"])) == (W, W)
    assert hand.run(rows["a2"]) is S
    assert (status(root), status(rows["a"])) == (S, S)
    done = fresh(root)
    assert (done.children_open, done.children_failed, done.error) == (0, 0, None)
    assert done.finished is not None
    assert done.result_expiry is not None
    stream = Stream.objects.get(root=root.id)
    assert (stream.tree_open, stream.open) == (0, False)


def test_a_failure_travels_up_and_nothing_is_called_off(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, echoing("a", "b"))
    rows = by_name(root)
    hand.run(rows["a"], echoing("a1", "a2"))
    rows = by_name(root)
    assert hand.fail(rows["a1"], "broken") is F
    assert status(rows["a"]) is W
    assert hand.run(rows["a2"]) is S
    assert (status(rows["a"]), fresh(rows["a"]).error) == (I, "broken")
    assert status(root) is W
    assert hand.run(rows["b"]) is S
    assert (status(root), fresh(root).error, fresh(root).children_failed) == (I, "broken", 1)


def test_the_value_of_a_body_with_subtasks_is_the_parents_result(hand: Hand) -> None:
    root = noop.delay()
    link = root.chain(echo)

    def body(cqt):
        cqt.subtask(echo, "a")
        return {"kept": 1}

    assert hand.run(root, body) is W
    hand.run(by_name(root)["a"], lambda cqt: "the child's")
    assert (status(root), fresh(root).result) == (S, {"kept": 1})
    assert fresh(link).previous_result == {"kept": 1}


def test_a_returned_subtask_gives_the_parent_its_result(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: cqt.subtask(echo, "a").chain(echo, "b"))
    rows = by_name(root)
    assert fresh(root).waiting_on == rows["b"].id
    hand.run(rows["a"], lambda cqt: 1)
    assert status(root) is W
    hand.run(rows["b"], lambda cqt: {"nested": [2]})
    assert (status(root), fresh(root).result) == (S, {"nested": [2]})


def test_results_reach_the_root_through_levels(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: cqt.subtask(echo, "a"))
    hand.run(by_name(root)["a"], lambda cqt: cqt.subtask(echo, "b"))
    hand.run(by_name(root)["b"], lambda cqt: "from below")
    assert (status(root), fresh(root).result) == (S, "from below")


def test_children_of_a_failed_or_void_attempt_never_exist(hand: Hand) -> None:
    root = noop.delay()
    claimed = hand.take(root)

    def body(cqt):
        cqt.subtask(echo, "a").chain(echo, "b")
        raise ValueError("after planning")

    assert hand.run(claimed, body) is F
    plans = hand.ran(claimed, echoing("c"))
    assert Task.objects.count() == 1
    assert complete([plans]) == {root.id: F}, "the latest end, told once more"
    assert Task.objects.count() == 1


def test_a_retried_attempt_leaves_no_children_behind(hand: Hand) -> None:
    root = noop.delay()
    assert hand.end(root, retrying()) is Status.RETRY
    assert hand.run(root, echoing("a")) is W
    assert fresh(root).children_open == 1


def test_a_child_added_from_outside_is_waited_for(hand: Hand) -> None:
    root = noop.delay()
    child = root.subtask(echo, "added")
    assert (fresh(root).children_open, child.root_id, child.depth) == (1, root.id, 1)
    assert hand.run(root, lambda cqt: "own") is W
    assert hand.run(child) is S
    assert (status(root), fresh(root).result) == (S, "own")


def test_a_child_added_from_outside_may_end_first(hand: Hand) -> None:
    root = noop.delay()
    child = root.subtask(echo, "added")
    hand.claim()
    assert hand.fail(child, "early") is F
    assert status(root) is R
    assert hand.run(root) is I
    assert (fresh(root).error, fresh(root).children_failed) == ("early", 1)


def test_a_child_added_from_outside_is_waited_for_beside_planned_ones(hand: Hand) -> None:
    root = noop.delay()
    child = root.subtask(echo, "added")
    hand.claim()
    assert hand.run(root, echoing("planned")) is W
    assert fresh(root).children_open == 2
    hand.run(by_name(root)["planned"])
    assert status(root) is W
    hand.run(child)
    assert status(root) is S


def test_an_ended_task_takes_no_more_children(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root)
    with pytest.raises(InvalidOption, match="Success already"):
        root.subtask(echo, "late")
    assert Task.objects.count() == 1


def test_one_batch_may_end_a_whole_tree(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, echoing("a", "b"))
    for name in "ab":
        hand.run(by_name(root)[name], echoing(f"{name}1", f"{name}2"))
    rows = by_name(root)
    leaves = [hand.ran(rows[name]) for name in ("a1", "b1", "b2", "a2")]
    assert set(complete(leaves).values()) == {S}
    assert [status(rows["a"]), status(rows["b"]), status(root)] == [S, S, S]


def test_a_batch_holds_a_parent_its_child_and_strangers(hand: Hand) -> None:
    first, second = noop.delay(), add.delay(1, 2)
    child = first.subtask(echo, "x")
    hand.claim()
    batch = [hand.ran(child), hand.ran(first), hand.ending(second, failure())]
    assert complete(batch) == {child.id: S, first.id: W, second.id: F}
    assert [status(child), status(first), status(second)] == [S, S, F]


@pytest.mark.parametrize("stores", [True, False])
def test_a_parent_that_stores_no_result_still_hands_it_on(
    hand: Hand, stores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(noop, "options", replace(noop.options, store_result=stores))
    plain, parent = noop.delay(), noop.delay()
    links = [task.chain(echo) for task in (plain, parent)]
    hand.run(plain, lambda cqt: 41)
    hand.run(parent, lambda cqt: cqt.subtask(echo, "a"))
    hand.run(by_name(parent)["a"], lambda cqt: 42)
    assert [status(plain), status(parent)] == [S, S]
    kept = [41, 42] if stores else [None, None]
    assert [fresh(task).result for task in (plain, parent)] == kept
    assert [fresh(link).previous_result for link in links] == [41, 42]


def test_a_depth_beyond_the_limit_is_refused(hand: Hand, settings) -> None:
    settings.CQ = {"MAX_DEPTH": 2}
    root = noop.delay()
    child = root.subtask(echo, "one")
    with pytest.raises(InvalidOption, match="MAX_DEPTH"):
        child.subtask(echo, "two")


def test_result_ttl_and_defaults_decide_the_expiry(hand: Hand, settings) -> None:
    settings.CQ = {"SUCCESS_TTL": 100, "FAILURE_TTL": 1000}
    own, good, bad, revoked = (
        noop.delay_args(result_ttl=10),
        noop.delay(),
        noop.delay(),
        noop.delay(),
    )
    hand.claim()
    hand.run(own)
    hand.run(good)
    hand.fail(bad)
    revoked.revoke()

    def ttl(task: Task) -> float:
        row = fresh(task)
        return round((row.result_expiry - row.finished).total_seconds())

    assert [ttl(task) for task in (own, good, bad, revoked)] == [10, 100, 1000, 1000]
    assert status(revoked) is E


def test_a_parents_expiry_follows_its_own_end(hand: Hand, settings) -> None:
    settings.CQ = {"SUCCESS_TTL": 100, "FAILURE_TTL": 1000}
    good, bad = noop.delay(), noop.delay()
    hand.run(good, echoing("a"))
    hand.run(bad, echoing("b"))
    hand.run(by_name(good)["a"])
    hand.fail(by_name(bad)["b"])
    for task, seconds in ((good, 100), (bad, 1000)):
        row = fresh(task)
        assert round((row.result_expiry - row.finished).total_seconds()) == seconds


def test_an_outcome_that_adopts_a_stranger_fails_the_task(hand: Hand) -> None:
    root = noop.delay()
    assert hand.end(root, Succeeded(adopts=UUID(int=7))) is F
    assert "does not exist" in fresh(root).error


def test_claim_order_is_not_lost_in_a_tree(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, echoing("a", "b", "c"))
    assert [claimed.args[0] for claimed in hand.claim()] == ["a", "b", "c"]
    assert {status(row) for row in by_name(root).values()} == {R}
    assert Q not in {status(root)}

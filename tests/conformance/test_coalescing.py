"""Coalescing: one waiting task for each key, whoever asks and whatever runs meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import transaction

from cq.models import Task
from cq.workflow.completion import complete
from cq.workflow.rescue import rescue_tasks
from tests.conformance.connections import closing, together
from tests.conformance.driving import (
    Hand,
    P,
    S,
    W,
    by_name,
    crashed,
    fresh,
    on_postgres,
    released,
    retrying,
    status,
)
from tests.sampleapp.tasks import echo, noop

waiting = echo.using(coalesce=True)
active = echo.using(coalesce="active")


def keys() -> list[tuple[str, bool]]:
    """The statuses of the rows, and whether each still has its key."""
    rows = Task.objects.order_by("submitted", "id")
    return [(row.status, row.unique_key is not None) for row in rows]


def test_true_merges_with_what_has_not_started(hand: Hand, bells: list[str]) -> None:
    first = waiting.delay("x")
    assert len(bells) == 1
    again = waiting.delay("x")
    assert (again.id, again.is_merged, len(bells)) == (first.id, True, 1)
    assert waiting.delay("y").id != first.id
    hand.take(first)
    newer = waiting.delay("x")
    assert (newer.id != first.id, newer.is_merged) == (True, False), "no event is lost to a run"
    hand.run(first)
    assert waiting.delay("x").id == newer.id


def test_active_merges_with_what_runs_or_waits_as_well(hand: Hand) -> None:
    first = active.delay("x")
    hand.take(first)
    assert active.delay("x").id == first.id
    hand.run(first, lambda cqt: [None, cqt.subtask(noop)][0])
    assert (status(first), active.delay("x").id) == (W, first.id)
    hand.run_all()
    assert status(first) is S
    assert active.delay("x").id != first.id


def test_a_held_task_is_merged_with(hand: Hand) -> None:
    held = echo.using(coalesce=True, submit=False).delay("x")
    assert waiting.delay("x").id == held.id
    assert status(held) is P


def test_a_key_of_ones_own_needs_no_equal_arguments(hand: Hand) -> None:
    first = echo.using(unique_key="k").delay(1)
    assert echo.using(unique_key="k").delay(2).id == first.id
    assert noop.using(unique_key="k").delay().id != first.id, "keys belong to a function"


@pytest.mark.parametrize("back", [retrying, released, crashed], ids=lambda made: made.__name__)
def test_what_must_wait_again_gives_its_key_up_to_a_newer_task(hand: Hand, back: Any) -> None:
    first = waiting.delay("x")
    hand.take(first)
    newer = waiting.delay("x")
    hand.end(first, back())
    assert (fresh(first).unique_key, fresh(newer).unique_key is not None) == (None, True)
    assert waiting.delay("x").id == newer.id


@pytest.mark.parametrize("back", [retrying, released, crashed], ids=lambda made: made.__name__)
def test_without_a_newer_task_it_keeps_its_key(hand: Hand, back: Any) -> None:
    first = waiting.delay("x")
    hand.take(first)
    hand.end(first, back())
    assert waiting.delay("x").id == first.id


def test_two_runs_of_one_key_may_be_put_back_together(hand: Hand) -> None:
    for _ in range(3):
        hand.take(waiting.delay("x"))
    complete([hand.ending(claimed, retrying()) for claimed in list(hand.held.values())])
    assert sorted(keys()) == [("Y", False), ("Y", False), ("Y", True)]


def test_two_runs_of_one_key_may_be_rescued_together(hand: Hand) -> None:
    for _ in range(3):
        hand.take(waiting.delay("x"))
    hand.die()
    assert rescue_tasks() == 3
    assert sorted(keys()) == [("Q", False), ("Q", False), ("Q", True)]


def test_a_retried_root_takes_its_key_back(hand: Hand) -> None:
    first = active.delay("x")
    hand.fail(first)
    first.retry()
    assert active.delay("x").id == first.id


# --- planned subtasks ----------------------------------------------------------------------------


def test_a_subtask_equal_to_a_waiting_task_is_not_made(hand: Hand, caplog: Any) -> None:
    holder = waiting.delay("x")
    root = noop.using(queue="other").delay()
    (claimed,) = hand.claim(queues=["other"])

    def body(cqt):
        merged = cqt.subtask(waiting.signature("x"))
        merged.chain(echo, "behind").chain(echo, "far behind")
        cqt.subtask(echo, "made")
        return "value"

    with caplog.at_level("INFO", logger="cq.workflow"):
        assert hand.run(claimed, body) is W
    assert set(by_name(root)) == {"made"}
    assert (fresh(root).children_open, fresh(holder).root_id) == (1, None)
    assert caplog.text.count("is not made") == 3
    hand.run(by_name(root)["made"])
    assert (status(root), fresh(root).result) == (S, "value")
    hand.run_all()


def test_a_parent_whose_only_subtask_is_not_made_ends(hand: Hand) -> None:
    waiting.delay("x")
    root = noop.using(queue="other").delay()
    (claimed,) = hand.claim(queues=["other"])
    hand.run(claimed, lambda cqt: [cqt.subtask(waiting.signature("x"))][0])
    assert (status(root), fresh(root).result, Task.objects.count()) == (S, None, 2)


def test_equal_subtasks_of_one_body_are_one(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.subtask(waiting.signature("x")) for _ in range(3)][:0])
    assert (status(root), fresh(root).children_open, Task.objects.count()) == (W, 1, 2)
    hand.run_all()
    assert status(root) is S


def test_a_link_of_ones_own_that_is_not_made_is_not_counted(hand: Hand) -> None:
    waiting.delay("x")
    root = noop.using(queue="other").delay()
    (claimed,) = hand.claim(queues=["other"])
    hand.run(claimed, lambda cqt: [None, cqt.subtask(noop.using(queue="other").signature())][0])
    (child,) = hand.claim(queues=["other"])
    hand.run(child, lambda cqt: [None, cqt.chain(waiting.signature("x"))][0])
    assert (status(root), fresh(root).children_open) == (S, 0)


# --- races ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coalesce", [True, "active"])
def test_of_32_threads_one_makes_the_task(hand: Hand, coalesce: Any) -> None:
    calls = echo.using(coalesce=coalesce)
    for turn in range(3):
        made = together([lambda turn=turn: calls.delay(turn)] * 32)
        assert len({task.id for task in made}) == 1
        assert sum(not task.is_merged for task in made) == 1
    assert Task.objects.count() == 3


def test_threads_that_claim_between_delays_lose_nothing(hand: Hand) -> None:
    def work(number: int) -> Any:
        if number % 4 == 0:
            hand_of_its_own = Hand()
            return [hand_of_its_own.run(claimed) for claimed in hand_of_its_own.claim()]
        return waiting.delay("x").id

    for _ in range(5):
        made = {
            id
            for id in together([lambda n=n: work(n) for n in range(16)])
            if not isinstance(id, list)
        }
        hand.run_all()
        assert {status(id) for id in made} == {S}


def test_bulk_calls_in_opposite_order_do_not_wait_for_each_other(hand: Hand) -> None:
    names = [str(number) for number in range(40)]

    def work(number: int) -> Any:
        ordered = names if number % 2 else names[::-1]
        return [task.id for task in waiting.delay_many([((name,), {}) for name in ordered])]

    made = together([lambda n=n: work(n) for n in range(8)])
    assert {frozenset(ids) for ids in made} == {frozenset(made[0])}
    assert Task.objects.count() == 40


def test_a_rolled_back_holder_leaves_room(hand: Hand) -> None:
    with transaction.atomic():
        first = waiting.delay("x")
        transaction.set_rollback(True)
    second = waiting.delay("x")
    assert (second.id != first.id, second.is_merged) == (True, False)


@on_postgres
def test_a_retry_that_loses_its_key_in_that_very_moment_is_still_a_retry(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cq.models.transitions import end as module

    first = waiting.delay("x")
    claimed = hand.take(first)
    real, calls = module.key_taken, []

    def blind_once(db: Any, ids: str) -> str:
        calls.append(ids)
        if len(calls) == 1:
            # What a concurrent delay() looks like before it has committed.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(closing, lambda: waiting.delay("x")).result()
            return "false"
        return real(db, ids)

    monkeypatch.setattr(module, "key_taken", blind_once)
    assert hand.end(claimed, retrying()).value == "Y"
    assert len(calls) == 2
    assert (status(first).value, fresh(first).unique_key) == ("Y", None)

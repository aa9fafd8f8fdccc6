"""Which pools rest after a long look that found nothing for them, and what wakes them."""

from __future__ import annotations

from uuid import uuid4

from cq.models.transitions import Want
from cq.worker.dry_pools import DryPools

ASYNC, THREAD = Want(("crawl",), 100), Want(("send",), 6)
BOTH = [ASYNC, THREAD]


def resting(until: float = 101.0) -> DryPools:
    """Pools of which the threads' rests since 100."""
    dry = DryPools()
    assert not dry.note([THREAD], (until - 100.0) / 20, 0, 100.0, is_crowded=True)
    return dry


def test_a_quick_look_makes_nobody_rest() -> None:
    dry = DryPools()
    assert not dry.note([THREAD], 0.002, 100, 100.0, is_crowded=True)
    assert not dry
    assert dry.split(BOTH, 100.0) == (BOTH, [])


def test_a_long_look_makes_those_rest_for_whom_it_found_too_little() -> None:
    dry = resting()
    assert dry.split(BOTH, 100.9) == ([ASYNC], [THREAD])
    assert dry.seconds_left(100.9) is not None
    assert dry.split(BOTH, 101.1) == (BOTH, [])
    assert dry.seconds_left(101.1) is None


def test_a_rest_has_an_end_however_long_the_look_was() -> None:
    dry = DryPools()
    dry.note([THREAD], 10.0, 0, 100.0, is_crowded=True)
    assert dry.split(BOTH, 130.1) == (BOTH, [])


def test_a_slow_look_at_few_rows_makes_nobody_rest() -> None:
    dry = DryPools()
    assert not dry.note(BOTH, 5.0, 0, 100.0, is_crowded=False)
    assert not dry


def test_rows_that_were_brought_excuse_some_time() -> None:
    dry = DryPools()
    dry.note([THREAD], 0.05, 400, 100.0, is_crowded=True)
    assert not dry


def test_a_quick_look_past_all_rows_wakes_those_that_rest() -> None:
    dry = resting()
    assert dry.note([ASYNC], 0.002, 7, 100.1, is_crowded=True)
    assert dry.split(BOTH, 100.1) == (BOTH, [])


def test_a_full_claim_says_nothing_about_those_that_rest() -> None:
    dry = resting()
    assert not dry.note([], 0.002, 100, 100.1, is_crowded=True)
    assert dry.split(BOTH, 100.1) == ([ASYNC], [THREAD])


def test_what_is_rung_while_somebody_rests_is_tried_once() -> None:
    dry, rung = resting(), [uuid4(), uuid4()]
    dry.hear(rung)
    assert dry.take_ids([THREAD]) == rung
    assert dry.take_ids([THREAD]) == []


def test_what_is_rung_is_kept_for_a_pool_without_room() -> None:
    dry, rung = resting(), [uuid4()]
    dry.hear(rung)
    assert dry.take_ids([]) == rung
    assert dry.take_ids([THREAD]) == rung


def test_nothing_is_kept_while_nobody_rests() -> None:
    dry = DryPools()
    dry.hear([uuid4()])
    assert dry.take_ids([]) == []


def test_of_many_that_were_rung_the_newest_are_kept() -> None:
    dry, rung = resting(), [uuid4() for _ in range(1200)]
    for start in range(0, 1200, 100):
        dry.hear(rung[start : start + 100])
    assert dry.take_ids([THREAD]) == rung[-500:]

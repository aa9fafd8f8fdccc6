"""The arithmetic of the benchmarks against numbers that one can check by hand."""

from __future__ import annotations

import pytest

from benchmarks.figures import (
    advantage,
    best,
    is_better_low,
    medians,
    percentiles,
    rate,
    share_of_limit,
    spread,
)
from benchmarks.meter import EVERY, Run

SECOND = 1_000_000_000


def steady(count: int, first: int, last: int) -> Run:
    """A process that did so many at even intervals."""
    step = (last - first) / (count - 1)
    marks = tuple(int(first + step * (place * EVERY - 1)) for place in range(1, count // EVERY + 1))
    return Run(count, first, last, marks)


def test_a_rate_is_from_the_first_done_to_the_last():
    assert rate([steady(101, SECOND, 2 * SECOND)]) == pytest.approx(100)


def test_a_rate_begins_when_the_last_process_has_joined():
    # One alone for a second, then both at 1,000 a second each: what counts is both.
    early = steady(4001, 0, 4 * SECOND)
    late = steady(3001, SECOND, 4 * SECOND)
    assert rate([early, late]) == pytest.approx(2000, rel=0.01)


def test_a_rate_of_work_that_was_over_before_counts_the_whole_span():
    early = steady(1001, 0, SECOND)
    late = steady(11, 2 * SECOND, 3 * SECOND)
    assert rate([early, late]) == pytest.approx(1011 / 3)


def test_a_process_for_each_task_counts_the_whole_span():
    runs = [Run(1, at * SECOND, at * SECOND) for at in range(11)]
    assert rate(runs) == pytest.approx(1)


def test_naps_that_end_in_waves_are_no_more_than_the_ideal():
    nap, slots, waves = SECOND // 20, 50, 10
    ends = [nap * (1 + place // slots) for place in range(slots * waves)]
    marks = tuple(ends[place - 1] for place in range(EVERY, len(ends) + 1, EVERY))
    run = Run(len(ends), ends[0], ends[-1], marks)
    assert rate([run], lead=nap) == pytest.approx(slots * 20)


def test_nothing_done_is_no_rate():
    assert rate([]) == 0
    assert rate([Run(1, SECOND, SECOND)]) == 0


def test_percentiles_are_those_of_a_hundred_values():
    found = percentiles(range(101), "x")
    assert found == {"x p50 ms": 50, "x p95 ms": 95, "x p99 ms": 99}
    assert percentiles([7], "x") == {"x p50 ms": 7, "x p95 ms": 7, "x p99 ms": 7}
    assert percentiles([], "x") == {}


def test_medians_take_the_rounds_that_have_a_figure():
    rounds = [{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0}]
    assert medians(rounds) == {"a": 2.0, "b": 5.0}
    assert spread(rounds, "a") == 1.0
    assert spread(rounds, "none") == 0.0


@pytest.mark.parametrize(
    ("figure", "low"),
    [("tasks/s", False), ("% of ideal", False), ("start p50 ms", True), ("idle MiB", True)],
)
def test_times_and_memory_are_better_low(figure: str, low: bool):
    assert is_better_low(figure) is low


def test_the_best_is_the_highest_rate_or_the_shortest_time():
    assert best({"a": 1.0, "b": 2.0, "c": 0.0}, "tasks/s") == "b"
    assert best({"a": 1.0, "b": 2.0, "c": 0.0}, "p50 ms") == "a"
    assert best({"a": 0.0}, "tasks/s") is None


def test_an_advantage_says_how_many_times_better():
    assert advantage(200, 100, "tasks/s") == 2
    assert advantage(2, 1, "p50 ms") == 0.5
    assert advantage(0, 1, "tasks/s") is None


def test_a_time_is_compared_with_a_rate_as_its_inverse():
    assert share_of_limit(500, 1000, "tasks/s") == 0.5
    assert share_of_limit(2, 1000, "p50 ms") == 0.5
    assert share_of_limit(99, 1000, "% of ideal") is None
    assert share_of_limit(1, 0, "tasks/s") is None

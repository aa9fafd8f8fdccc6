"""Random lives of trees: whatever happens, counters, streams and ends are what rows say."""

from __future__ import annotations

import pytest

from tests.conformance.connections import together
from tests.conformance.driving import check_invariants
from tests.conformance.forest import Forest, counters_as_the_rows_say

STEPS = 70


def live(seed: int) -> None:
    forest, story = Forest(seed), []
    try:
        for _ in range(STEPS):
            story.append(forest.step())
            counters_as_the_rows_say()
        forest.settle()
        counters_as_the_rows_say()
    except BaseException as problem:
        problem.add_note(f"seed {seed}: {' '.join(story)}")
        raise


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("database")
def test_a_random_life_ends_well(seed: int) -> None:
    live(seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("database")
def test_random_lives_of_many_hands_end_well(seed: int) -> None:
    forests = [Forest(100 * seed + number) for number in range(5)]
    answers = together([lambda forest=forest: forest.hurry(50) for forest in forests])
    for problem in filter(None, answers):
        raise problem
    check_invariants()
    for forest in forests:
        forest.settle_own()
    forests[0].settle()
    counters_as_the_rows_say()


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hundred", range(4))
@pytest.mark.usefixtures("database")
def test_many_random_lives_end_well(hundred: int) -> None:
    from cq.models import Stream, Task

    for seed in range(1000 + hundred * 100, 1100 + hundred * 100):
        live(seed)
        Task.objects.all().delete()
        Stream.objects.all().delete()

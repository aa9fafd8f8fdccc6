"""
One lock order for everybody: ancestors by absolute depth, deepest first, then by id.

The schedule that deadlocks otherwise is forced here: two batches, each ending a child of one
tree and a grandchild of the other, meet after their first ancestors. With the order they pass;
with one that counts levels from the own row they do not, so that the test is known to bite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, get_ident
from typing import Any

import pytest
from django.db import OperationalError

from cq.definition.outcome import Succeeded
from cq.errors import IllegalTransition
from cq.models import Task
from cq.workflow import completion, settle
from cq.workflow.completion import Completion
from cq.workflow.retry import retry
from tests.conformance.connections import elsewhere, lock, together
from tests.conformance.driving import Hand, S, W, by_name, on_postgres, status
from tests.sampleapp.tasks import echo, noop

pytestmark = on_postgres


def tree(hand: Hand) -> tuple[Task, Task, Task]:
    """A root that waits for a leaf and for the parent of one; returns root, leaf, grandchild."""
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.subtask(echo, "leaf"), cqt.subtask(echo, "parent")][:0])
    hand.run(by_name(root)["parent"], lambda cqt: [cqt.subtask(echo, "grandchild")][:0])
    rows = by_name(root)
    return root, rows["leaf"], rows["grandchild"]


def crossing(hand: Hand) -> tuple[list[Task], list[list[Completion]]]:
    """Two trees, and two batches that end a child of the one and a grandchild of the other."""
    first, first_leaf, first_grandchild = tree(hand)
    second, second_leaf, second_grandchild = tree(hand)
    hand.claim()
    pairs = [(first_leaf, second_grandchild), (second_leaf, first_grandchild)]
    batches = [[hand.ending(task, Succeeded()) for task in pair] for pair in pairs]
    return [first, second], batches


class Meeting:
    """Lets every batch wait, after its first ancestors, until the others have theirs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = settle.settle_parents
        self._threads: set[int] = set()
        monkeypatch.setattr(settle, "settle_parents", self._settle_then_meet)

    def of(self, count: int) -> None:
        self._threads.clear()
        self._barrier = Barrier(count)

    def _settle_then_meet(self, db: Any, children: Any, **ttls: Any) -> Any:
        answer = self._real(db, children, **ttls)
        if get_ident() not in self._threads:
            self._threads.add(get_ident())
            with suppress(BrokenBarrierError):
                # Broken when somebody waits for a lock instead: then this one goes on alone.
                self._barrier.wait(0.5)
        return answer


def failures(answers: Sequence[Any]) -> list[Exception]:
    return [answer for answer in answers if isinstance(answer, Exception)]


def write_once(batch: list[Completion]) -> Callable[[], object]:
    """Complete a batch without repeating it when the database asks for it."""
    return lambda: completion._complete_all(batch)


@pytest.fixture
def unrepeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "repeated", lambda work, **_: work())


@pytest.mark.usefixtures("unrepeated")
def test_crossing_batches_never_wait_in_a_circle(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = Meeting(monkeypatch)
    for _ in range(20):
        roots, batches = crossing(hand)
        meeting.of(2)
        assert not failures(together([write_once(batch) for batch in batches]))
        assert [status(root) for root in roots] == [S, S]


@pytest.mark.usefixtures("unrepeated")
def test_levels_counted_from_the_own_row_would_deadlock(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, batches = crossing(hand)
    Meeting(monkeypatch).of(2)
    monkeypatch.setattr(settle, "max", min, raising=False)
    stuck = failures(together([write_once(batch) for batch in batches]))
    assert stuck
    assert all(isinstance(error, OperationalError) for error in stuck)
    monkeypatch.undo()
    for batch in batches:
        completion.complete(batch)
    assert [status(root) for root in roots] == [S, S]


def test_a_deadlock_would_only_cost_time(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    roots, batches = crossing(hand)
    Meeting(monkeypatch).of(2)
    monkeypatch.setattr(settle, "max", min, raising=False)
    works = [lambda batch=batch: completion.complete_each(batch) for batch in batches]
    assert not failures(together(works))
    monkeypatch.undo()
    for batch in batches:
        completion.complete(batch)
    assert [status(root) for root in roots] == [S, S]


@pytest.mark.usefixtures("unrepeated")
def test_batches_over_shared_parents_pass_in_any_number(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [noop.delay() for _ in range(4)]
    for root in roots:
        hand.run(root, lambda cqt: [cqt.subtask(echo, f"p{n}") for n in range(3)][:0])
        for parent in by_name(root).values():
            hand.run(parent, lambda cqt: [cqt.subtask(echo, f"c{n}") for n in range(4)][:0])
    hand.claim()
    leaves = list(hand.held.values())
    assert len(leaves) == 48
    Meeting(monkeypatch).of(6)
    batches = [[hand.ending(leaf, Succeeded()) for leaf in leaves[n::6]] for n in range(6)]
    assert not failures(together([write_once(batch) for batch in batches]))
    assert {status(root) for root in roots} == {S}
    assert not Task.objects.filter(status=W).exists()


def test_a_retry_in_vain_waits_for_nobody_in_a_living_tree(hand: Hand) -> None:
    root, leaf, _ = tree(hand)
    began = time.monotonic()
    with elsewhere(lock(leaf)), pytest.raises(IllegalTransition, match="cannot be retried"):
        retry(root, failed_only=True)
    assert time.monotonic() - began < 10

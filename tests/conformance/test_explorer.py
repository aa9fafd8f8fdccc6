"""
Two workers, a rescuer, a revoker and a child's end over one tree, in every order.

Their statements are those of the engine. After each commit the prompt rules of the checker
must hold, each row must have moved along one arrow (P4, P20); at the end children exist iff
the attempt that planned them counted (P7, P18), nothing starts after a revoke has returned
(P11), and everything comes to an end (P1, P17). `exhaustive` goes deeper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from cq.definition.outcome import Succeeded
from cq.definition.status import TERMINAL, TRANSITIONS, Status
from cq.models import LogLine, Stream, Task, Worker
from cq.models.sql import Dialect
from cq.workflow import completion, rescue, revoke, transaction
from cq.workflow.checker import PROMPT, check
from cq.workflow.completion import complete
from cq.workflow.rescue import declare_dead, rescue_tasks
from tests.conformance.driving import Hand, S, by_name, failure, on_postgres, status
from tests.conformance.explorer import (
    COMMIT,
    Act,
    BrokenSchedule,
    Explorer,
    StandsStill,
    Step,
    exploring,
)
from tests.sampleapp.tasks import echo, noop

pytestmark = on_postgres

NAMES = ("worker", "claimer", "rescuer", "revoker", "finisher")
ARROWS = {
    (source, target)
    for arrow in TRANSITIONS
    if arrow.id not in ("T17", "T19")
    for source in arrow.sources
    for target in arrow.targets
}
FENCE = "AND t.claim_token = v.token AND t.status = 'R'"


class Tree:
    """A root that waits for three children, and what each actor does to it."""

    def __init__(self) -> None:
        self.hand, self.other, self.third = Hand(), Hand(), Hand()
        self.root = noop.delay()
        self.hand.run(self.root, self.grow)
        rows = by_name(self.root)
        self.child, self.last = rows["grows"], rows["fails"]
        self.growing = self.hand.ran(self.hand.take(self.child), self.spawn)
        mine = self.hand.held.pop(self.last.id)
        self.failing = self.hand.ending(mine, failure())
        # Only the first belongs to the worker that dies; the third one's is its own.
        Task.objects.filter(pk=self.last.pk).update(worker=self.third.row)
        self.root.subtask(noop)
        self.revoked = False
        self.counted: dict[str, Any] = {}
        self.statuses: dict[UUID, Status] = {}
        self.look(Step("nobody", COMMIT, (), False))

    def grow(self, cqt: Any) -> None:
        cqt.subtask(echo, "grows").chain(echo, "behind")
        cqt.subtask(echo, "fails")

    def spawn(self, cqt: Any) -> None:
        cqt.subtask(echo, "grandchild")

    def acts(self) -> dict[str, Act]:
        return {name: getattr(self, name) for name in NAMES}

    def worker(self) -> None:
        self.counted["worker"] = complete([self.growing])

    def finisher(self) -> None:
        self.counted["finisher"] = complete([self.failing])

    def claimer(self) -> None:
        for claimed in self.other.claim(1):
            self.other.held.pop(claimed.id)
            complete([self.other.ending(claimed, Succeeded())])

    def rescuer(self) -> None:
        declare_dead(self.hand.row.pk, 0)
        rescue_tasks()

    def revoker(self) -> None:
        revoke.revoke(self.root.id)
        self.revoked = True

    # --- what must hold ---

    def look(self, step: Step) -> None:
        """After each commit: the rules of the checker, and one arrow for each row that moved."""
        if step.did.startswith("SELECT") or step.did == "start":
            return
        found = check(PROMPT, instant=0).found
        assert not found, f"the checker finds {found}"
        now = {id: Status(letter) for id, letter in Task.objects.values_list("id", "status")}
        for id, before in self.statuses.items():
            after = now[id]
            assert after == before or (before, after) in ARROWS, f"{id}: {before} to {after}"
            if self.revoked:
                assert after != Status.RUNNING, f"{id} started after the revoke"
        self.statuses = now

    def close(self) -> None:
        """At the end of a schedule: what was void left nothing, and all comes to an end."""
        born = Task.objects.filter(parent=self.child).count()
        counts = self.child.id in self.counted.get("worker", {})
        assert born == int(counts), f"{born} grandchildren of an attempt that counts: {counts}"
        if self.revoked:
            still = Task.objects.exclude(status__in=sorted(TERMINAL))
            assert not still.exists(), f"open after the revoke: {list(still)}"
        self.finish()
        assert not Task.objects.active().exists()
        assert not check(PROMPT, instant=0)

    def finish(self) -> None:
        complete([self.growing, self.failing])
        Task.objects.active().update(run_at="2020-01-01T00:00:00Z")
        self.third.run_all()


def empty() -> None:
    for model in (LogLine, Stream, Task, Worker):
        model.objects.all().delete()


@pytest.fixture
def explorer(database: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Explorer]:
    with exploring(NAMES) as made:
        still = StandsStill(made)
        monkeypatch.setattr(revoke, "_pause", still)
        monkeypatch.setattr(transaction, "_pause", still)
        # Who waits is seen; a slow machine must not make a schedule another one.
        for room in (completion, rescue):
            monkeypatch.setattr(room, "LOCK_TIMEOUT_MS", 30_000)
        yield made


def playing(explorer: Explorer, cast: Sequence[str]) -> Callable[[Sequence[str]], list[Step]]:
    def play(wanted: Sequence[str]) -> list[Step]:
        empty()
        tree = Tree()
        acts = {name: act for name, act in tree.acts().items() if name in cast}
        steps = explorer.run(acts, wanted, tree.look)
        try:
            tree.close()
        except AssertionError as problem:
            told = "\n".join(f"  {step.actor}: {step.did}" for step in steps)
            raise BrokenSchedule(f"{problem} after\n{told}") from problem
        return steps

    return play


PAIRS = list(combinations(NAMES, 2))


@pytest.mark.parametrize("cast", PAIRS, ids=[" and ".join(cast) for cast in PAIRS])
@pytest.mark.slow
def test_two_keep_the_promises_with_one_preemption(
    explorer: Explorer, cast: tuple[str, ...]
) -> None:
    played = explorer.explore(playing(explorer, cast), preemptions=1, limit=12)
    assert played >= 8


def test_all_five_keep_the_promises_one_after_the_other(explorer: Explorer) -> None:
    assert explorer.explore(playing(explorer, NAMES), preemptions=0, limit=12) == 12


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cast", PAIRS, ids=[" and ".join(cast) for cast in PAIRS])
def test_two_keep_the_promises_with_two_preemptions(
    explorer: Explorer, cast: tuple[str, ...]
) -> None:
    explorer.explore(playing(explorer, cast), preemptions=2, limit=1000)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cast", [*combinations(NAMES, 3), NAMES], ids=" ".join)
def test_more_keep_the_promises_with_one_preemption(
    explorer: Explorer, cast: tuple[str, ...]
) -> None:
    explorer.explore(playing(explorer, cast), preemptions=1, limit=1500)


# --- it is able to find a fault -----------------------------------------------------------------


@pytest.mark.contradictory
def test_without_the_fence_a_schedule_is_found_that_breaks_a_promise(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Dialect.run

    def unfenced(self: Dialect, sql: str, params: Any = None) -> Any:
        return real(self, sql.replace(FENCE, "AND t.status NOT IN ('S', 'F')"), params)

    monkeypatch.setattr(Dialect, "run", unfenced)
    with pytest.raises(BrokenSchedule, match=r"(?s)Q to W.*rescuer: .*worker: UPDATE cq_task"):
        explorer.explore(playing(explorer, ("worker", "rescuer")), preemptions=1)


def test_the_fence_is_there_to_be_removed(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = Dialect.run
    monkeypatch.setattr(
        Dialect,
        "run",
        lambda self, sql, params=None: [seen.append(sql), real(self, sql, params)][1],
    )
    task = noop.delay()
    hand.run(task)
    assert sum(FENCE in sql for sql in seen) == 1
    assert status(task) is S


@pytest.mark.contradictory
def test_those_who_wait_for_each_other_are_found(explorer: Explorer) -> None:
    first, second = noop.delay(), noop.delay()

    def locking(*tasks: Task) -> Act:
        def act() -> None:
            from django.db import transaction as django_transaction

            with django_transaction.atomic():
                for task in tasks:
                    list(Task.objects.select_for_update().filter(pk=task.pk))

        return act

    acts = {"worker": locking(first, second), "claimer": locking(second, first)}
    with pytest.raises(BrokenSchedule, match="wait for each other"):
        explorer.explore(
            lambda wanted: explorer.run(acts, wanted, lambda step: None), preemptions=1
        )
    assert connection.is_usable()

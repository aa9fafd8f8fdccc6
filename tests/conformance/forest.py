"""
A random life of a few trees: everything the engine offers, in any order, against an oracle.

After each step the rows are read and compared with the step before: every status must have
moved along arrows of the state machine, counters and streams must be what the rows say, and
what has ended stays ended unless somebody retried it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from cq.definition.outcome import Succeeded
from cq.definition.status import TERMINAL, TRANSITIONS, Status
from cq.errors import CQError
from cq.models import LogLine, Stream, Task
from cq.models.streams import append
from cq.models.transitions import PREDECESSOR_FAILED
from cq.workflow.completion import Completion, complete
from cq.workflow.rescue import rescue_tasks
from cq.workflow.transaction import engine_transaction
from tests.conformance.driving import (
    E,
    F,
    Hand,
    I,
    L,
    P,
    Q,
    S,
    W,
    Y,
    check_invariants,
    crashed,
    failure,
    line,
    released,
    retrying,
    status,
)
from tests.sampleapp.tasks import echo, noop

ENOUGH = 150


def _reachable(extra: bool) -> set[tuple[Status, Status]]:
    """Pairs of statuses with a path of arrows between them, those of retries where wanted."""
    steps = {
        (source, target)
        for arrow in TRANSITIONS
        if extra or arrow.id not in ("T17", "T19")
        for source in arrow.sources
        for target in arrow.targets
    }
    if extra:
        # Ancestors wait once more, links are held once more: the side effects of T17 and T19.
        steps |= {(I, W), (E, P)}
    paths = set(steps)
    while True:
        longer = {(a, d) for a, b in paths for c, d in steps if b == c} - paths
        if not longer:
            return paths
        paths |= longer


FORWARD, ANEW = _reachable(False), _reachable(True)


class Forest:
    """Some trees, a worker, and the seed that decides what happens to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hand = Hand()
        self.void: list[Completion] = []
        self.made = 0
        self.seen: dict[UUID, Status] = {}
        for _ in range(self.random.randint(1, 3)):
            noop.delay()

    def hurry(self, steps: int) -> None:
        """Let things happen beside others who do the same; nothing can be compared meanwhile."""
        deeds = [self.claim, self.complete_some, self.chain_somewhere, self.add_a_subtask]
        deeds += [self.log_something, self.die_and_be_rescued, self.revoke_somebody]
        for _ in range(steps):
            self.random.choices(deeds, [30, 50, 6, 4, 4, 2, 2])[0]()

    # --- one step ---

    def step(self) -> str:
        """Let something happen, and hold it against the rows; say what it was."""
        deeds: list[tuple[int, Callable[[], object]]] = [
            (20, self.claim),
            (40, self.complete_some),
            (6, self.chain_somewhere),
            (4, self.add_a_subtask),
            (4, self.log_something),
            (3, self.die_and_be_rescued),
            (3, self.revoke_somebody),
            (4, self.retry_something),
            (2, self.complete_what_is_void),
            (2, self.start_a_tree),
        ]
        deed = self.random.choices([d for _, d in deeds], [weight for weight, _ in deeds])[0]
        deed()
        self.look(anew=deed == self.retry_something)
        return deed.__name__

    def look(self, *, anew: bool = False) -> None:
        now = {id: Status(letter) for id, letter in Task.objects.values_list("id", "status")}
        for id, before in self.seen.items():
            after = now[id]
            allowed = ANEW if anew else FORWARD
            assert after == before or (before, after) in allowed, f"{id}: {before} to {after}"
        self.seen = now
        check_invariants()

    def settle_own(self) -> None:
        """Complete what this hand holds."""
        for claimed in list(self.hand.held.values()):
            self.hand.run(claimed)

    def settle(self) -> None:
        """Let everything that is open come to its end."""
        while True:
            for task in Task.objects.filter(status=P, previous=None):
                task.submit()
            if not (self.hand.held or self.hand.claim()):
                break
            for claimed in list(self.hand.held.values()):
                self.hand.run(claimed)
            self.look()
        left = Task.objects.exclude(status__in=sorted(TERMINAL))
        assert not left.exists(), f"for ever open: {list(left)}"
        assert not Stream.objects.filter(open=True).exists()
        for root, end in Stream.objects.values_list("root", "seq"):
            numbers = (
                LogLine.objects.filter(root=root).order_by("seq").values_list("seq", flat=True)
            )
            assert list(numbers) == list(range(1, end + 1))

    # --- what may happen ---

    def claim(self) -> None:
        self.hand.claim(self.random.randint(1, 6))

    def complete_some(self) -> None:
        held = list(self.hand.held.values())
        self.random.shuffle(held)
        batch = [self.ended(claimed) for claimed in held[: self.random.randint(1, 5)]]
        self.void += batch
        complete(batch)

    def ended(self, claimed: Any) -> Completion:
        kind = self.random.choices(
            ["grow", "plain", "adopt", "fail", "retry", "release", "crash"],
            [35 if self.may_grow() else 0, 30, 6 if self.may_grow() else 0, 14, 6, 4, 2],
        )[0]
        if kind == "grow":
            return self.hand.ran(claimed, self.growing)
        if kind == "plain":
            return self.hand.ran(claimed, lambda cqt: [cqt.log("done"), str(cqt.id)][1])
        if kind == "adopt":
            return self.hand.ran(claimed, self.adopting)
        made = {"fail": failure, "retry": retrying, "release": released, "crash": crashed}[kind]
        return self.hand.ending(claimed, made())

    def may_grow(self) -> bool:
        return self.made < ENOUGH

    def growing(self, cqt: Any) -> Any:
        drafts = []
        for _ in range(self.random.randint(1, 3)):
            self.made += 1
            keyed = echo.using(coalesce=True) if self.random.random() < 0.1 else echo
            draft = cqt.subtask(keyed.signature(self.random.randint(1, 3)))
            while self.random.random() < 0.3:
                draft = draft.chain(echo, force_chain=self.random.random() < 0.3)
            drafts.append(draft)
        if self.random.random() < 0.2:
            cqt.chain(echo, force_chain=self.random.random() < 0.5)
        return self.random.choice([None, *drafts])

    def adopting(self, cqt: Any) -> Any:
        self.made += 2
        task = noop.delay()
        link = task.chain(echo) if self.random.random() < 0.5 else task
        if self.random.random() < 0.3:
            Hand().run_all({task.id: self.growing})
        return self.random.choice([task, link])

    def somebody(self) -> Task | None:
        ids = sorted(Task.objects.values_list("id", flat=True))
        return Task.objects.get(pk=self.random.choice(ids)) if ids else None

    def chain_somewhere(self) -> None:
        task = self.somebody()
        if task is not None and self.may_grow():
            self.made += 1
            task.chain(echo, force_chain=self.random.random() < 0.3)

    def add_a_subtask(self) -> None:
        task = self.somebody()
        if task is not None and self.may_grow() and task.depth < 20:
            try:
                task.subtask(echo, "from outside")
                self.made += 1
            except CQError:
                assert status(task) in TERMINAL

    def log_something(self) -> None:
        if self.hand.held:
            with engine_transaction() as db:
                append(db, [line(claimed) for claimed in self.hand.held.values()])

    def die_and_be_rescued(self) -> None:
        self.void += [
            self.hand.ending(claimed, Succeeded()) for claimed in list(self.hand.held.values())
        ]
        self.hand.die()
        rescue_tasks()
        Task.objects.filter(status__in=[Q, Y]).update(run_at="2020-01-01T00:00:00Z")
        self.hand = Hand()

    def revoke_somebody(self) -> None:
        task = self.somebody()
        if task is not None:
            task.revoke()
            assert task.status in TERMINAL

    def retry_something(self) -> None:
        ended = Task.objects.filter(parent=None, status__in=[F, I, L, E])
        for task in ended.exclude(error=PREDECESSOR_FAILED).order_by("id"):
            try:
                task.retry(failed_only=self.random.random() < 0.5)
            except CQError:
                continue
            return

    def complete_what_is_void(self) -> None:
        rows = list(Task.objects.order_by("id").values())
        late = [replace(item, claimed=replace(item.claimed, token=uuid4())) for item in self.void]
        assert complete(late) == {}
        assert list(Task.objects.order_by("id").values()) == rows

    def start_a_tree(self) -> None:
        if self.may_grow():
            noop.delay_args(submit=self.random.random() < 0.7)


def counters_as_the_rows_say() -> None:
    """`children_failed` is the number of children of this generation that did not succeed."""
    children: dict[UUID, list[Task]] = {}
    for row in Task.objects.filter(parent__isnull=False):
        children.setdefault(row.parent_id, []).append(row)
    for row in Task.objects.filter(status__in=[S, I, W]):
        mine = [child for child in children.get(row.id, ()) if child.submitted >= row.submitted]
        failed = sum(child.status in (F, I, L, E) for child in mine)
        shown = [(str(child), child.submitted, child.error) for child in children.get(row.id, ())]
        told = f"{row} of {row.submitted}, generation {row.generation}: {shown}"
        assert row.children_failed == failed, told
        assert (row.status == I) is (failed > 0 and row.status != W), told

"""
The engine against a model that fits on a page: Hypothesis looks for a life that differs.

The model knows trees of tasks, their statuses, who holds a claim, and what a plan is worth
whose attempt did not count. After each rule every row must be where the model has it. The
ordinary run is derandomized; `exhaustive` lives CQ_LIVES (1000) lives, and prints one that failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cq import conf
from cq.definition.outcome import Succeeded
from cq.definition.status import ERROR, TERMINAL, Status
from cq.errors import IllegalTransition, InvalidOption
from cq.models import LogLine, Stream, Task, Worker
from cq.models.transitions import PREDECESSOR_FAILED
from cq.workflow.checker import PROMPT, check
from cq.workflow.completion import complete
from cq.workflow.rescue import rescue_tasks
from cq.workflow.revoke import revoke
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
    Y,
    crashed,
    failure,
    released,
    retrying,
    stale,
)
from tests.sampleapp.tasks import echo, noop

MOST = 25
pick = st.integers(0, 1000)


@dataclass
class Node:
    """What the model knows of a task."""

    id: UUID
    status: Status = Q
    parent: Node | None = None
    previous: Node | None = None
    force: bool = False
    crashes: int = 0
    releases: int = 0
    children: list[Node] = field(default_factory=list)
    behind: list[Node] = field(default_factory=list)
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.status not in TERMINAL

    def family(self) -> Iterator[Node]:
        """The task, and all that lies below and behind it."""
        seen: dict[UUID, Node] = {}
        left = [self]
        while left:
            node = left.pop()
            if node.id not in seen:
                seen[node.id] = node
                left += [*node.children, *node.behind]
        yield from seen.values()

    def child(self, id: UUID) -> Node:
        made = Node(id, parent=self)
        self.children.append(made)
        return made

    def link(self, id: UUID, *, force: bool = False) -> Node:
        shared = self.parent if self.parent is not None and self.parent.is_open else None
        made = Node(id, status=P, parent=shared, previous=self, force=force)
        if shared is not None:
            shared.children.append(made)
        self.behind.append(made)
        if not self.is_open:
            self.release()
        return made

    def end(self, status: Status, reason: str = "") -> None:
        """End the task; what waited for it follows."""
        self.status, self.reason = status, reason
        self.release()
        if self.parent is not None:
            self.parent.settle()

    def release(self) -> None:
        by_hand = self.status is E and self.reason != PREDECESSOR_FAILED
        for link in self.behind:
            if link.status is P:
                if self.status is S or (link.force and not by_hand):
                    link.status = Q
                else:
                    link.end(E, "Revoked." if by_hand else PREDECESSOR_FAILED)

    def settle(self) -> None:
        """End a task that waits once nothing below it is open."""
        if self.status is W and not any(child.is_open for child in self.children):
            good = all(child.status is S for child in self.children)
            self.end(S if good else I)

    def returned(self) -> None:
        self.status = W
        self.settle()


class Life(RuleBasedStateMachine):
    """Everything that may happen to tasks, to the rows and to the model alike."""

    def __init__(self) -> None:
        super().__init__()
        for model in (LogLine, Stream, Task, Worker):
            model.objects.all().delete()
        self.hand = Hand()
        self.nodes: dict[UUID, Node] = {}
        self.late: list[Any] = []

    # --- choosing ---

    def some(self, number: int, *statuses: Status) -> Node | None:
        nodes = [one for one in self.nodes.values() if not statuses or one.status in statuses]
        return nodes[number % len(nodes)] if nodes else None

    def held(self, number: int) -> tuple[Node, Any]:
        claims = sorted(self.hand.held.values(), key=lambda claimed: str(claimed.id))
        claimed = claims[number % len(claims)]
        return self.nodes[claimed.id], claimed

    def know(self, node: Node) -> Node:
        self.nodes[node.id] = node
        return node

    def has_room(self) -> bool:
        return len(self.nodes) < MOST

    # --- making tasks ---

    @precondition(has_room)
    @rule(is_held=st.booleans())
    def submit(self, is_held: bool) -> None:
        task = noop.delay_args(submit=not is_held)
        self.know(Node(task.id, status=P if is_held else Q))

    @rule()
    def roll_back(self) -> None:
        with suppress(ZeroDivisionError), transaction.atomic():
            noop.delay().chain(echo, 1)
            raise ZeroDivisionError

    @precondition(lambda self: self.nodes and self.has_room())
    @rule(number=pick, force=st.booleans())
    def chain(self, number: int, force: bool) -> None:
        node = self.some(number)
        assert node is not None
        made = Task.objects.get(pk=node.id).chain(echo, 1, force_chain=force)
        self.know(node.link(made.id, force=force))

    @precondition(lambda self: self.nodes and self.has_room())
    @rule(number=pick)
    def subtask(self, number: int) -> None:
        node = self.some(number)
        assert node is not None
        task = Task.objects.get(pk=node.id)
        if node.is_open:
            self.know(node.child(task.subtask(echo, 1).id))
        else:
            with pytest.raises(InvalidOption):
                task.subtask(echo, 1)

    @rule(number=pick)
    def let_go(self, number: int) -> None:
        node = self.some(number, P)
        if node is not None and node.previous is None:
            Task.objects.get(pk=node.id).submit()
            node.status = Q

    # --- attempts ---

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        due = [node for node in self.nodes.values() if node.status in (Q, Y)]
        taken = self.hand.claim(limit)
        assert len(taken) == min(limit, len(due))
        for claimed in taken:
            assert self.nodes[claimed.id].status in (Q, Y)
            self.nodes[claimed.id].status = R

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def succeed(self, number: int) -> None:
        node, claimed = self.held(number)
        self.hand.run(claimed)
        node.returned()

    @precondition(lambda self: self.hand.held and self.has_room())
    @rule(number=pick, count=st.integers(1, 3), linked=st.booleans())
    def spawn(self, number: int, count: int, linked: bool) -> None:
        node, claimed = self.held(number)
        item = self.hand.ran(claimed, lambda cqt: self.grow(cqt, count, linked=linked))
        assert complete([item])
        for plan in item.outcome.children:
            if plan.previous is None:
                self.know(node.child(plan.id))
            else:
                self.know(self.nodes[plan.previous].link(plan.id))
        node.returned()

    def grow(self, cqt: Any, count: int, *, linked: bool) -> None:
        for number in range(count):
            draft = cqt.subtask(echo, number)
            if linked:
                draft.chain(echo, number)

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def spawn_and_fail(self, number: int) -> None:
        def body(cqt: Any) -> None:
            self.grow(cqt, 2, linked=True)
            raise ZeroDivisionError

        node, claimed = self.held(number)
        self.hand.run(claimed, body)
        node.end(F)

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def fail_to_retry(self, number: int) -> None:
        node, claimed = self.held(number)
        assert self.hand.end(claimed, retrying()) is Y
        node.status = Y

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def hand_back(self, number: int) -> None:
        node, claimed = self.held(number)
        self.hand.end(claimed, released())
        node.releases += 1
        if node.releases > conf.current().max_releases:
            node.end(F)
        else:
            node.status = Q

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def crash(self, number: int) -> None:
        node, claimed = self.held(number)
        self.hand.end(claimed, crashed())
        self.charge(node)

    def lose_worker(self, node: Node) -> None:
        if node.crashes and node.releases < conf.current().max_releases:
            # A suspect runs in a child, so that its worker died of something else.
            node.releases += 1
            node.status = Q
        else:
            self.charge(node)

    def charge(self, node: Node) -> None:
        node.crashes += 1
        if node.crashes >= conf.current().max_crashes:
            node.end(L)
        else:
            node.status = Q

    @precondition(lambda self: self.hand.held)
    @rule(number=pick)
    def complete_with_a_stale_token(self, number: int) -> None:
        _, claimed = self.held(number)
        item = self.hand.ending(stale(claimed), Succeeded())
        self.hand.held[claimed.id] = claimed
        assert complete([item]) == {}

    @rule()
    def complete_what_is_void(self) -> None:
        assert complete(self.late) == {}

    # --- from outside ---

    @rule()
    def die_and_be_rescued(self) -> None:
        held = list(self.hand.held.values())
        self.late += [self.hand.ending(claimed, failure()) for claimed in held]
        self.hand.die()
        rescue_tasks()
        for claimed in held:
            self.lose_worker(self.nodes[claimed.id])
        Task.objects.filter(status=Q).update(run_at="2020-01-01T00:00:00Z")
        self.hand = Hand()

    @precondition(lambda self: self.nodes)
    @rule(number=pick)
    def revoke_family(self, number: int) -> None:
        node = self.some(number)
        assert node is not None
        stopped = [one for one in node.family() if one.is_open]
        assert revoke(node.id) is bool(stopped)
        for one in stopped:
            if (claimed := self.hand.held.pop(one.id, None)) is not None:
                self.late.append(self.hand.ending(claimed, failure()))
            one.status, one.reason = E, "Revoked."
        for one in stopped:
            if one.parent is not None:
                one.parent.settle()

    @precondition(lambda self: self.nodes)
    @rule(number=pick)
    def retry(self, number: int) -> None:
        node = self.some(number)
        assert node is not None
        task = Task.objects.get(pk=node.id)
        if node.parent is None and node.status in ERROR and not self.open_below(node):
            task.retry()
            node.status, node.reason, node.children = Q, "", []
            node.crashes = node.releases = 0
            self.hold_again(node)
        else:
            with pytest.raises(IllegalTransition):
                task.retry()

    def open_below(self, node: Node) -> bool:
        rows = [one for one in self.nodes.values() if one.is_open]
        return any(self.is_below(one, node) for one in rows if one is not node)

    def is_below(self, one: Node, top: Node) -> bool:
        above = [one]
        while above:
            current = above.pop()
            if current is top:
                return True
            above += [other for other in (current.parent, current.previous) if other is not None]
        return False

    def hold_again(self, node: Node) -> None:
        for link in node.behind:
            if link.status is E and link.reason == PREDECESSOR_FAILED:
                link.status, link.reason = P, ""
                self.hold_again(link)

    # --- what must hold ---

    @invariant()
    def rows_are_where_the_model_has_them(self) -> None:
        rows = {id: Status(letter) for id, letter in Task.objects.values_list("id", "status")}
        assert rows == {id: node.status for id, node in self.nodes.items()}

    @invariant()
    def the_checker_finds_nothing(self) -> None:
        assert list(check(PROMPT, instant=0).found) == []

    def teardown(self) -> None:
        """Whatever happened, everything can come to its end."""
        for node in list(self.nodes.values()):
            if node.status is P and node.previous is None:
                Task.objects.get(pk=node.id).submit()
        self.hand.run_all()
        assert not Task.objects.active().exists()


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("database")
def test_rows_live_as_the_model_does() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=15,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("database")
def test_many_rows_live_as_the_model_does() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            database=None,
            deadline=None,
            max_examples=int(os.environ.get("CQ_LIVES", "1000")),
            stateful_step_count=60,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

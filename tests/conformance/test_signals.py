"""Signals: every end of a task is told once, and so is everything that comes to be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from cq.definition import registry
from cq.definition.outcome import Succeeded
from cq.execution.attempt import Stopper
from cq.execution.executor import Executor
from cq.models import Task
from cq.models.transitions import Claimed
from cq.signals import task_enqueued, task_finished, task_started
from cq.workflow.completion import complete
from cq.workflow.recording import Recorder
from cq.workflow.rescue import end_overdue, rescue_tasks
from tests.conformance.driving import E, F, Hand, I, L, P, Q, S, W, by_name, fresh, stale, status
from tests.sampleapp.tasks import echo, noop, where_in_a_child

Ended = list[tuple[Any, Any, Any]]


@pytest.fixture
def ended() -> Iterator[Ended]:
    """What `task_finished` says: the task, its status, and the attempt that ended it."""
    found: Ended = []

    def receive(sender: Any, task_id: Any, attempt: Any, status: Any, **facts: Any) -> None:
        found.append((task_id, status, attempt))

    task_finished.connect(receive)
    yield found
    task_finished.disconnect(receive)


@pytest.fixture
def made() -> Iterator[list[Task]]:
    """The rows that `task_enqueued` brings."""
    found: list[Task] = []

    def receive(sender: Any, task: Task, **facts: Any) -> None:
        found.append(task)

    task_enqueued.connect(receive)
    yield found
    task_enqueued.disconnect(receive)


def test_an_end_by_ones_own_attempt_is_told_once(hand: Hand, ended: Ended) -> None:
    done, failing = noop.delay(), noop.delay()
    item = hand.ending(done, Succeeded())
    complete([item])
    complete([item])
    hand.fail(failing)
    assert ended == [(done.id, S, 1), (failing.id, F, 1)]


def test_parents_that_their_last_child_ends_are_told(hand: Hand, ended: Ended) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: cqt.subtask(echo, "middle"))
    middle = by_name(root)["middle"]
    hand.run(middle, lambda cqt: cqt.subtask(echo, "leaf"))
    assert (status(root), status(middle), ended) == (W, W, [])
    leaf = by_name(root)["leaf"]
    hand.fail(leaf)
    assert ended == [(leaf.id, F, 1), (middle.id, I, None), (root.id, I, None)]


def test_a_revoke_tells_of_all_that_it_ends(hand: Hand, ended: Ended) -> None:
    root = noop.delay()
    link = root.chain(echo, "link")
    hand.claim()
    root.revoke()
    assert sorted(ended) == sorted([(root.id, E, None), (link.id, E, None)])
    root.revoke()
    assert len(ended) == 2


def test_links_behind_a_failure_are_told(hand: Hand, ended: Ended) -> None:
    first = noop.delay()
    second = first.chain(echo, "second")
    third = second.chain(echo, "third")
    hand.fail(first)
    assert ended == [(first.id, F, 1), (second.id, E, None), (third.id, E, None)]


def test_the_lost_and_the_expired_are_told(hand: Hand, ended: Ended) -> None:
    lost = noop.delay()
    hand.claim()
    expired = noop.using(expires=60).delay()
    Task.objects.filter(pk=lost.pk).update(at_most_once=True)
    Task.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    hand.die()
    rescue_tasks()
    end_overdue()
    assert ended == [(lost.id, L, None), (expired.id, F, None)]


def test_a_link_put_behind_an_end_tells_of_itself_only(hand: Hand, ended: Ended) -> None:
    first = noop.delay()
    hand.fail(first)
    ended.clear()
    link = first.chain(echo, "late")
    assert ended == [(link.id, E, None)]


def test_nothing_is_told_of_what_is_void_or_rolled_back(hand: Hand, ended: Ended) -> None:
    task = noop.delay()
    held = hand.take(task)
    assert complete([hand.ending(stale(held), Succeeded())]) == {}
    hand.held[held.id] = held
    item = hand.ending(held, Succeeded())
    with transaction.atomic():
        complete([item])
        transaction.set_rollback(True)
    assert ended == []
    assert complete([item]) == {task.id: S}
    assert ended == [(task.id, S, 1)]


def test_what_a_body_plans_is_told_when_it_has_come_to_be(hand: Hand, made: list[Task]) -> None:
    root = noop.delay()

    def body(cqt: Any) -> None:
        cqt.subtask(echo, "child").chain(echo, "link")
        cqt.subtask(echo.using(coalesce=True), "same")
        cqt.subtask(echo.using(coalesce=True), "same")

    item = hand.ran(root, body)
    assert made == [root]
    complete([item])
    rows = by_name(root)
    assert {(row.id, row.status, row.root_id, row.depth) for row in made[1:]} == {
        (rows["child"].id, Q, root.id, 1),
        (rows["link"].id, P, root.id, 1),
        (rows["same"].id, Q, root.id, 1),
    }
    assert len(made) == 4
    hand.run_all()


def test_a_receiver_that_raises_keeps_up_nobody(hand: Hand, ended: Ended) -> None:
    def receive(**facts: Any) -> None:
        raise RuntimeError("of the receiver")

    for signal in (task_enqueued, task_finished):
        signal.connect(receive)
    try:
        root = noop.delay()
        hand.run(root, lambda cqt: cqt.subtask(echo, "child"))
        hand.run(by_name(root)["child"])
        gone = noop.delay()
        gone.revoke()
    finally:
        for signal in (task_enqueued, task_finished):
            signal.disconnect(receive)
    assert [status(root), status(gone)] == [S, E]
    assert [row for row, *_ in ended][1:] == [root.id, gone.id]


def test_the_returned_row_knows_when_it_expires(hand: Hand) -> None:
    assert noop.delay().expires_at is None
    for row in (noop.using(expires=60).delay(), noop.using(expires=60).delay_many([((), {})])[0]):
        assert row.expires_at is not None
        assert row.expires_at == fresh(row).expires_at


def test_a_start_is_told_where_the_body_runs(hand: Hand) -> None:
    """The child of `pool="process"` tells of it (`cq.execution.here`), not its parent as well."""
    started: list[Any] = []

    class Child:
        async def run(self, claimed: Claimed, limit: float | None) -> None:
            started.append("in the child")

    def receive(sender: Any, task_id: Any, **facts: Any) -> None:
        started.append(task_id)

    row, inside = noop.delay(), where_in_a_child.delay()
    stopper = Stopper(lambda *_: None, lambda: None)
    recorder = Recorder(10)
    executor = Executor(1, 1, recorder, Child(), stopper)  # type: ignore[arg-type]
    task_started.connect(receive)
    try:
        for one in (row, inside):
            claimed = hand.take(one)
            function = registry.lookup(claimed.func_name)
            asyncio.run(executor.run(executor.attempt(claimed, function, recorder.open(claimed))))
    finally:
        task_started.disconnect(receive)
        executor.close()
    assert started == [row.id, "in the child"]

"""Races: claims against deaths, rescuers against each other, revokes against everything."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from cq.definition.outcome import Succeeded
from cq.definition.status import TERMINAL
from cq.errors import WaitTimeout
from cq.models import Task, Worker, workers
from cq.models.sql import dialect
from cq.models.transitions import Want, claim
from cq.workflow import revoke as revoking
from cq.workflow.claim import claim_named
from cq.workflow.completion import complete
from cq.workflow.rescue import declare_dead, end_overdue, rescue_tasks
from cq.workflow.revoke import revoke
from tests.conformance.connections import closing, elsewhere, lock, somebody_waits, together
from tests.conformance.driving import (
    E,
    F,
    Hand,
    L,
    P,
    Q,
    R,
    S,
    W,
    by_name,
    failure,
    fresh,
    line,
    on_postgres,
    retrying,
    status,
)
from tests.sampleapp.tasks import echo, noop
from tests.waiting import wait_until

NAMES = Want((noop.name, echo.name), 100)
ONE = Want((noop.name,), 1)


def errors(answers: list[Any]) -> list[Exception]:
    return [answer for answer in answers if isinstance(answer, Exception)]


# --- a claim and the death of its worker (K8c) ---------------------------------------------------


@on_postgres
@pytest.mark.parametrize("by_id", [False, True], ids=["claim", "claim by id"])
def test_a_worker_is_not_declared_dead_before_its_claim_in_flight_is_seen(
    hand: Hand, by_id: bool
) -> None:
    task = noop.delay()

    def take() -> None:
        if by_id:
            claim_named(hand.row.pk, [task.id], ONE)
        else:
            claim(dialect(), hand.row.pk, [NAMES])

    with ThreadPoolExecutor(1) as pool:
        with elsewhere(take):
            declared = pool.submit(closing, lambda: declare_dead(hand.row.pk, 0))
            wait_until(somebody_waits)
            assert status(task) is Q
        assert declared.result(10) is True
    assert (status(task), fresh(task).worker_id) == (R, hand.row.pk)
    assert rescue_tasks() == 1
    assert status(task) is Q


@on_postgres
@pytest.mark.parametrize("by_id", [False, True], ids=["claim", "claim by id"])
def test_a_worker_claims_nothing_while_it_is_declared_dead(hand: Hand, by_id: bool) -> None:
    task = noop.delay()

    def take() -> Any:
        return claim_named(hand.row.pk, [task.id], ONE) if by_id else hand.claim()

    with ThreadPoolExecutor(1) as pool:
        with elsewhere(lambda: declare_dead(hand.row.pk, 0)):
            taken = pool.submit(closing, take)
            wait_until(somebody_waits)
        assert not taken.result(10)
    assert status(task) is Q


def test_a_worker_that_has_beaten_since_is_alive(hand: Hand) -> None:
    assert workers.beat(dialect(), hand.row.pk, "running") is True
    assert declare_dead(hand.row.pk, 0) is False
    assert declare_dead(hand.row.pk, 1) is True
    assert declare_dead(hand.row.pk, 1) is False
    assert workers.beat(dialect(), hand.row.pk, "running") is False
    assert Worker.objects.get().alive is False


def test_of_many_observers_one_declares_the_death(hand: Hand) -> None:
    assert sorted(together([lambda: declare_dead(hand.row.pk, 0)] * 6)) == [False] * 5 + [True]


def test_rescuers_share_the_work(hand: Hand) -> None:
    tasks = noop.delay_many([((), {})] * 450)
    hand.claim()
    Task.objects.filter(pk__in=[task.pk for task in tasks[:50]]).update(at_most_once=True)
    hand.die()
    assert sum(together([rescue_tasks] * 4)) == 450
    assert set(Task.objects.values_list("status", "crashes")) == {(Q, 1), (L, 1)}
    assert rescue_tasks() == 0


@on_postgres
def test_a_rescuer_passes_over_what_is_being_completed(hand: Hand) -> None:
    task, other = noop.delay(), noop.delay()
    hand.claim()
    item = hand.ending(task, Succeeded())
    hand.die()
    with elsewhere(lambda: complete([item])):
        assert rescue_tasks() == 1
    assert [status(task), status(other)] == [S, Q]
    assert rescue_tasks() == 0


@on_postgres
def test_a_held_ancestor_keeps_up_the_lost_below_it_only(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cq.workflow import rescue

    monkeypatch.setattr(rescue, "LOCK_TIMEOUT_MS", 100)
    parents = [noop.delay() for _ in range(3)]
    for parent in parents:
        hand.run(parent, lambda cqt: [cqt.subtask(echo, 1)][:0])
    again = noop.delay()
    hand.claim()
    children = [Task.objects.get(parent=parent) for parent in parents]
    Task.objects.filter(parent__isnull=False).update(at_most_once=True)
    hand.die()
    with elsewhere(lock(parents[1])):
        assert rescue_tasks() == 3
        assert [status(child) for child in children] == [L, R, L]
        assert status(again) is Q
    assert rescue_tasks() == 1
    assert status(children[1]) is L


@on_postgres
def test_what_is_held_expires_later(hand: Hand) -> None:
    task = noop.using(expires=0.001).delay()
    assert hand.claim() == []
    with elsewhere(lock(task)):
        assert end_overdue() == 0
    assert end_overdue() == 1
    assert status(task) is F


# --- revokes -------------------------------------------------------------------------------------


def grown(hand: Hand) -> Task:
    """A tree with a task in every open status."""
    root = noop.delay()

    def body(cqt):
        for name in ("queued", "running", "waiting", "retrying"):
            cqt.subtask(echo, name).chain(echo, f"held behind {name}")

    hand.run(root, body)
    rows = by_name(root)
    hand.run(rows["waiting"], lambda cqt: [cqt.subtask(echo, "below")][:0])

    hand.end(rows["retrying"], retrying(delay=60))
    return root


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside an atomic block"])
def test_a_revoked_tree_ends_whole_and_nothing_of_it_starts(hand: Hand, inside: bool) -> None:
    root = grown(hand)
    held = dict(hand.held)
    assert {row.status for row in Task.objects.all()} >= {P, R, W, "Y"}
    if inside:
        with transaction.atomic():
            root.revoke()
            assert status(root) is W
    else:
        root.revoke()
    assert {row.status for row in Task.objects.all()} == {E}
    assert hand.claim() == []
    late = [hand.ending(claimed, Succeeded(), lines=[line(claimed)]) for claimed in held.values()]
    assert complete(late) == {}


def test_a_revoked_branch_leaves_the_others(hand: Hand) -> None:
    root = grown(hand)
    rows = by_name(root)
    rows["waiting"].revoke()
    gone = {"waiting", "held behind waiting", "below"}
    assert {name for name, row in by_name(root).items() if row.status == E} == gone
    assert status(root) is W
    root.revoke()


@pytest.mark.parametrize("turn", range(6))
def test_a_revoke_against_growing_and_ending_ends_everything(hand: Hand, turn: int) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.subtask(echo, n).chain(noop) for n in range(12)][:0])
    children = hand.claim()

    def work(number: int) -> object:
        mine = children[number::3]
        for claimed in mine:
            body = (lambda cqt: [cqt.subtask(noop), cqt.subtask(noop)][:0]) if number else None
            complete([hand.ran(claimed, body)])
        return Hand().claim()

    works = [lambda n=n: work(n) for n in range(3)]
    answers = together([*works, lambda: revoke(root.id), lambda: revoke(root.id)])
    assert not errors(answers)
    assert {row.status for row in Task.objects.all()} <= set(TERMINAL)
    assert status(root) is E
    before = set(Task.objects.filter(status__in=[E]).values_list("id", flat=True))
    assert Hand().claim() == []
    assert before == set(Task.objects.filter(status__in=[E]).values_list("id", flat=True))


@on_postgres
def test_a_completion_in_flight_is_waited_for_by_a_revoke(hand: Hand) -> None:
    root = noop.delay()
    item = hand.ran(root, lambda cqt: [cqt.subtask(echo, "born late")][:0])
    with ThreadPoolExecutor(1) as pool:
        with elsewhere(lambda: complete([item])):
            revoked = pool.submit(closing, lambda: revoke(root.id))
        assert revoked.result(10) is True
    assert {row.status for row in Task.objects.all()} == {E}
    assert Task.objects.count() == 2


@on_postgres
def test_a_revoke_in_flight_voids_the_completion(hand: Hand) -> None:
    root = noop.delay()
    item = hand.ran(root, lambda cqt: [cqt.subtask(echo, "never born")][:0])
    with ThreadPoolExecutor(1) as pool:
        with elsewhere(lambda: revoking._end({root.id: None})):
            completed = pool.submit(closing, lambda: complete([item]))
            wait_until(somebody_waits)
        assert completed.result(10) == {}
    assert (status(root), Task.objects.count()) == (E, 1)


@on_postgres
def test_a_revoke_that_cannot_lock_a_row_says_so(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "_PATIENCE_SECONDS", 0.2)
    root = noop.delay()
    first, second = root.subtask(echo, 1), root.subtask(echo, 2)
    with elsewhere(lock(second)):
        with pytest.raises(WaitTimeout, match="1 of the tasks"):
            revoke(root)
        assert [status(root), status(first), status(second)] == [E, E, Q]
    revoke(root)
    assert status(second) is E


def test_two_trees_are_revoked_and_completed_crosswise(hand: Hand) -> None:
    for _ in range(4):
        roots = [noop.delay() for _ in range(2)]
        for root in roots:
            hand.run(root, lambda cqt: [cqt.subtask(echo, n) for n in range(6)][:0])
        children = hand.claim()
        batches = [[hand.ending(child, Succeeded()) for child in children[n::2]] for n in (0, 1)]
        works = [lambda batch=batch: complete(batch) for batch in batches]
        revokes = [lambda root=root: revoke(root.id) for root in roots]
        assert not errors(together([*works, *revokes]))
        assert {status(root) for root in roots} <= {S, E}


def test_siblings_that_end_together_end_their_parent_once(hand: Hand) -> None:
    for _ in range(4):
        root = noop.delay()
        link = root.chain(noop)
        hand.run(root, lambda cqt: [cqt.subtask(echo, n) for n in range(8)][:0])
        items = [hand.ending(claimed, Succeeded()) for claimed in hand.claim()]
        items[3].outcome = failure()
        answers = together([lambda item=item: complete([item]) for item in items])
        assert not errors(answers)
        row = fresh(root)
        assert (row.status, row.children_open, row.children_failed) == ("I", 0, 1)
        assert status(link) is E


def test_claims_at_once_share_the_rows(hand: Hand) -> None:
    tasks = noop.delay_many([((), {})] * 200)
    hands = [Hand() for _ in range(6)]

    def work(mine: Hand) -> list[UUID]:
        found: list[UUID] = []
        while taken := mine.claim(7):
            found += [claimed.id for claimed in taken]
        return found

    taken = together([lambda mine=mine: work(mine) for mine in hands])
    ids = [id for found in taken for id in found]
    assert len(ids) == len(set(ids))
    left = [claimed.id for claimed in hand.claim()]
    assert sorted([*ids, *left]) == sorted(task.id for task in tasks)
    assert len(left) < 50, "a claim passes over held rows, and comes back for more"

"""
The state machine as a table: every operation on every status.

What `definition/status.py` allows happens, with the row as the table says; everything else
changes nothing. What else belongs to an arrow is proved in test_arrows*.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from cq.definition.ids import uuid7
from cq.definition.outcome import Outcome, Succeeded
from cq.definition.status import TERMINAL, TRANSITIONS, Status
from cq.errors import DuplicateSubmit, IllegalTransition
from cq.models import Stream, Task
from cq.models.transitions import Claimed, Want
from cq.workflow.claim import claim_named
from cq.workflow.rescue import end_overdue, park_unroutable, rescue_tasks
from cq.workflow.retention import prune
from cq.workflow.retry import retry_failed
from tests.conformance import test_arrows, test_arrows_from_outside
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
)
from tests.sampleapp.tasks import echo, noop

Arrow = tuple[str, Status | None]
Operation = Callable[[Hand, Task], object]


@dataclass(frozen=True)
class Case:
    """An operation, what the row must be like for it, and where it leads from where."""

    operate: Operation
    arrows: dict[Status, Arrow]
    row: dict[str, Any]
    only_status: bool = False
    """Whether the row may change otherwise: its counters, where a child of it ended."""


CASES: dict[str, Case] = {}


def case(
    name: str, arrows: dict[Status, Arrow], *, only_status: bool = False, **row: Any
) -> Callable[[Operation], Operation]:
    def register(operate: Operation) -> Operation:
        CASES[name] = Case(operate, arrows, row, only_status)
        return operate

    return register


def a_row(hand: Hand, status: Status, **changes: Any) -> Task:
    """A row of this status, as the engine would have left it, with its stream."""
    values: dict[str, Any] = {"func_name": noop.name, "status": status}
    if status is R:
        values |= {"claim_token": uuid4(), "worker": hand.row, "attempts": 1}
    elif status is Y:
        values |= {"attempts": 1, "retries": 1, "done_token": uuid4()}
    elif status is W:
        values |= {"attempts": 1, "children_open": 1, "done_token": uuid4()}
    elif status in TERMINAL:
        day = timedelta(days=1)
        values |= {"done_token": uuid4(), "finished": timezone.now() - 2 * day}
        values |= {"result_expiry": timezone.now() + day}
    row = Task.objects.create(**values | changes)
    if status is W and "children_open" not in changes:
        Task.objects.create(
            func_name=noop.name, status=P, parent=row, root_id=row.root_uuid, depth=row.depth + 1
        )
        Stream.objects.create(root=row.root_uuid, tree_open=2)
    return row


def its_claim(row: Task, token: UUID | None = None) -> Claimed:
    """The claim of the row's last attempt, whether it is valid or not."""
    return Claimed(
        id=row.id,
        token=token or row.claim_token or row.done_token or uuid4(),
        func_name=row.func_name,
        args=[],
        kwargs={},
        root=row.root_uuid,
        parent=row.parent_id,
        previous=row.previous_id,
        previous_result=None,
        pass_result=False,
        depth=row.depth,
        attempt=row.attempts,
        retries=row.retries,
        crashes=row.crashes,
        releases=row.releases,
        max_retries=None,
        timeout=None,
        queue=row.queue,
        is_root=row.root_id is None,
    )


# --- the operations ------------------------------------------------------------------------------


@case("submit", {P: ("T3", Q)})
def submit(hand: Hand, row: Task) -> None:
    try:
        row.submit()
    except DuplicateSubmit:
        assert row.status not in (P, E)


@case("submit behind a predecessor", {}, previous_id=uuid7())
def submit_a_link(hand: Hand, row: Task) -> None:
    if row.status != E:
        with pytest.raises(DuplicateSubmit):
            row.submit()


@case("claim", {Q: ("T4", R), Y: ("T4", R)})
def claim(hand: Hand, row: Task) -> None:
    hand.claim()


@case("claim by id", {Q: ("T4", R), Y: ("T4", R)})
def claim_by_id(hand: Hand, row: Task) -> None:
    claim_named(hand.row.pk, [row.id], Want((noop.name,), 1))


@case("claim by a dead worker", {})
def claim_dead(hand: Hand, row: Task) -> None:
    hand.die()
    assert hand.claim() == []
    assert claim_named(hand.row.pk, [row.id], Want((noop.name,), 1)) == []


@case("claim too early", {}, run_at=timezone.now() + timedelta(days=1))
def claim_early(hand: Hand, row: Task) -> None:
    claim(hand, row)
    claim_by_id(hand, row)


@case("claim too late", {}, expires_at=timezone.now() - timedelta(days=1))
def claim_late(hand: Hand, row: Task) -> None:
    claim(hand, row)
    claim_by_id(hand, row)


@case("claim of an unknown name", {}, func_name="nobody.knows")
def claim_unknown(hand: Hand, row: Task) -> None:
    claim(hand, row)
    claim_by_id(hand, row)


def endings() -> dict[str, tuple[Callable[[], Outcome], Arrow, dict[str, Any]]]:
    return {
        "success": (Succeeded, ("T5", S), {}),
        "success after a failed child": (Succeeded, ("T6", I), {"children_failed": 1}),
        "success, adopting an end": (an_adoption, ("T6", S), {}),
        "success with a subtask": (a_family, ("T6", W), {}),
        "another attempt": (retrying, ("T7", Y), {}),
        "failure": (failure, ("T8", F), {}),
        "release": (released, ("T9", Q), {}),
        "one release too many": (released, ("T8", F), {"releases": 20}),
        "crash of its process": (crashed, ("T10", Q), {}),
        "the last crash": (crashed, ("T11", L), {"crashes": 2}),
    }


def a_family() -> Succeeded:
    from cq.definition.signature import Signature, new_task

    return Succeeded(children=[new_task(Signature(echo, ("child",)))])


def an_adoption() -> Succeeded:
    ended = Task.objects.create(func_name=noop.name, status=S, finished=timezone.now())
    return Succeeded(adopts=ended.id)


def _register_endings() -> None:
    for name, (outcome, arrow, row) in endings().items():

        def end(hand: Hand, row: Task, outcome: Any = outcome) -> None:
            came_to = outcome()
            for plan in getattr(came_to, "children", ()):
                plan.parent = row.id
            hand.end(its_claim(row), came_to)

        def end_stale(hand: Hand, row: Task, outcome: Any = outcome) -> None:
            before = Task.objects.count()
            came_to = outcome()
            made = Task.objects.count() - before
            for plan in getattr(came_to, "children", ()):
                plan.parent = row.id
            assert hand.end(its_claim(row, uuid4()), came_to) is None
            assert Task.objects.count() == before + made, "a void attempt left rows"

        case(name, {R: arrow}, **row)(end)
        case(f"{name}, under a void token", {}, **row)(end_stale)


_register_endings()


@case("rescue", {R: ("T10", Q)})
def rescue(hand: Hand, row: Task) -> None:
    hand.die()
    rescue_tasks()


case("rescue after the last crash", {R: ("T11", L)}, crashes=2, releases=20)(rescue)
case("rescue of a suspect", {R: ("T10", Q)}, crashes=2)(rescue)
case("rescue of what may run once", {R: ("T11", L)}, at_most_once=True)(rescue)


@case("rescue while the worker lives", {})
def rescue_nobody(hand: Hand, row: Task) -> None:
    rescue_tasks()


@case("the last child's success", {W: ("T12", S)}, only_status=True, children_open=1)
def child_succeeds(hand: Hand, row: Task) -> None:
    hand.end(a_child(hand, row), Succeeded())


@case("the last child's failure", {W: ("T12", I)}, only_status=True, children_open=1)
def child_fails(hand: Hand, row: Task) -> None:
    hand.end(a_child(hand, row), failure())


def a_child(hand: Hand, row: Task) -> Claimed:
    child = a_row(hand, R, parent=row, root_id=row.root_uuid, depth=row.depth + 1)
    opened = 1 + (row.status not in TERMINAL)
    Stream.objects.create(root=row.root_uuid, tree_open=opened)
    return its_claim(child)


@case("revoke", {P: ("T13", E), Q: ("T13", E), Y: ("T13", E), R: ("T14", E), W: ("T14", E)})
def revoke(hand: Hand, row: Task) -> None:
    row.revoke()


@case("the predecessor's success", {P: ("T3", Q)})
def predecessor_succeeds(hand: Hand, row: Task) -> None:
    hand.end(its_claim(row.previous), Succeeded())


@case("the predecessor's failure", {P: ("T15", E)})
def predecessor_fails(hand: Hand, row: Task) -> None:
    hand.end(its_claim(row.previous), failure())


@case("the predecessor's failure, forced", {P: ("T3", Q)}, force_chain=True)
def predecessor_fails_forced(hand: Hand, row: Task) -> None:
    predecessor_fails(hand, row)


@case("the end of its time to start", {Q: ("T16", F), Y: ("T16", F)})
def expire(hand: Hand, row: Task) -> None:
    Task.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(days=1))
    end_overdue()


@case("a day without a worker", {Q: ("T16", F), Y: ("T16", F)}, func_name="nobody.knows")
def unroutable(hand: Hand, row: Task) -> None:
    Task.objects.filter(pk=row.pk).update(run_at=timezone.now() - timedelta(days=2))
    park_unroutable()
    end_overdue()


@case("retry", dict.fromkeys((F, I, L, E), ("T17", Q)))
def retry(hand: Hand, row: Task) -> None:
    if row.status in (F, I, L, E):
        row.retry()
    else:
        with pytest.raises(IllegalTransition):
            row.retry()


@case("prune", dict.fromkeys(TERMINAL, ("T18", None)))
def expire_and_prune(hand: Hand, row: Task) -> None:
    Task.objects.filter(pk=row.pk, status__in=TERMINAL).update(
        result_expiry=timezone.now() - timedelta(hours=1)
    )
    prune()


@case("prune too early", {})
def prune_early(hand: Hand, row: Task) -> None:
    prune()


@case("retry of what failed", dict.fromkeys((F, L, E), ("T19", Q)))
def retry_below(hand: Hand, row: Task) -> None:
    try:
        retry_failed(row.parent)
    except IllegalTransition:
        assert row.status not in (F, L, E)


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.contradictory  # rows of every status, each without the relatives that it implies
@pytest.mark.parametrize("name", CASES)
def test_an_operation_moves_a_row_only_where_an_arrow_leads(database: object, name: str) -> None:
    chosen, hand = CASES[name], Hand()
    rows = {
        status: a_row(hand, status, **_surroundings(hand, name, chosen, status))
        for status in Status
    }
    before = {status: _columns(row.id) for status, row in rows.items()}
    for row in rows.values():
        chosen.operate(hand, row)
    for status, row in rows.items():
        was, now = before[status], _columns(row.id)
        if status in chosen.arrows:
            assert now["status"] == chosen.arrows[status][1], status.label
        elif chosen.only_status:
            assert [now["status"], now["finished"]] == [was["status"], was["finished"]]
        else:
            given = {"expires_at", "run_at", "result_expiry"}
            changed = {key for key in was if was[key] != now.get(key)} - given
            assert not changed, f"{name} changed {changed} of a row that is {status.label}"


def _surroundings(hand: Hand, name: str, chosen: Case, status: Status) -> dict[str, Any]:
    values, relative = dict(chosen.row), None
    if name.startswith("the predecessor"):
        relative = a_row(hand, R)
        values |= {"previous_id": relative.id, "root_id": relative.id}
    if name == "retry of what failed":
        long_ago = timezone.now() - timedelta(days=3)
        relative = a_row(hand, I, children_failed=1, submitted=long_ago)
        values |= {"parent_id": relative.id, "root_id": relative.id, "depth": 1}
    if relative is not None:
        opened = (relative.status, status).count
        count = sum(opened(one) for one in Status if one not in TERMINAL)
        Stream.objects.create(root=relative.id, tree_open=count, open=count > 0)
        if status is W:
            values["children_open"] = 1
    return values


def _columns(id: UUID) -> dict[str, Any]:
    return Task.objects.filter(pk=id).values().first() or {"status": None}


def test_the_table_holds_exactly_the_arrows_of_the_state_machine() -> None:
    drawn = {
        (arrow.id, source, target)
        for arrow in TRANSITIONS
        for source in arrow.sources
        for target in arrow.targets or {None}
    }
    walked = {
        (id, source, target)
        for chosen in CASES.values()
        for source, (id, target) in chosen.arrows.items()
    }
    assert walked == drawn


def test_what_else_belongs_to_an_arrow_is_proved() -> None:
    proofs = {*vars(test_arrows), *vars(test_arrows_from_outside)}
    proved = {name.split("_")[1].upper() for name in proofs if name.startswith("test_t")}
    assert proved == {arrow.id for arrow in TRANSITIONS}

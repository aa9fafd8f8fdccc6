"""Batches of completions: a culprit is found, the others commit, and an answer may be lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
)

from cq.definition.outcome import Succeeded
from cq.models import LogLine, Task
from cq.workflow import completion as module
from cq.workflow.completion import complete, complete_each
from tests.conformance.connections import closing, elsewhere, lock, somebody_waits
from tests.conformance.driving import (
    F,
    Hand,
    I,
    R,
    S,
    W,
    Y,
    failure,
    fresh,
    line,
    on_postgres,
    retrying,
    stale,
    status,
)
from tests.sampleapp.tasks import echo, noop
from tests.waiting import wait_until

UNSTORABLE = "\x00 in the middle"


def running(hand: Hand, count: int) -> list[Task]:
    made = noop.delay_many([((), {})] * count)
    hand.claim()
    return made


# --- a culprit in the data -----------------------------------------------------------------------


@on_postgres
def test_a_result_the_database_refuses_fails_its_task_alone(hand: Hand) -> None:
    tasks = running(hand, 16)
    batch = [hand.ending(task, Succeeded(result=number)) for number, task in enumerate(tasks)]
    batch[5].outcome = Succeeded(result=UNSTORABLE)
    batch[5].lines = [line(batch[5].claimed, "what it said")]
    statuses = complete(batch)
    assert [statuses[task.id] for task in tasks] == [S] * 5 + [F] + [S] * 10
    row = fresh(tasks[5])
    assert "DataError" in row.errors[0]["type"]
    assert row.error == row.errors[0]["message"]
    assert [entry["message"] for entry in row.logs] == ["what it said"]


@on_postgres
def test_unstorable_lines_do_not_keep_a_task_from_ending(hand: Hand) -> None:
    (task,) = running(hand, 1)
    item = hand.ending(task, Succeeded(result=1))
    item.lines = [line(item.claimed, UNSTORABLE)]
    assert complete([item]) == {task.id: F}
    assert LogLine.objects.count() == 0


@on_postgres
def test_an_unstorable_failure_still_fails(hand: Hand) -> None:
    (task,) = running(hand, 1)
    assert hand.end(task, failure(UNSTORABLE)) is F
    assert "DataError" in fresh(task).errors[0]["type"]


def test_a_child_that_cannot_be_inserted_fails_its_parent_alone(hand: Hand) -> None:
    tasks = running(hand, 8)

    def body(cqt):
        cqt.subtask(echo, 1)
        cqt.drafts[0].priority = 1000

    batch = [hand.ran(task, body if task is tasks[3] else None) for task in tasks]
    statuses = complete(batch)
    assert [statuses[task.id] for task in tasks] == [S] * 3 + [F] + [S] * 4
    assert "IntegrityError" in fresh(tasks[3]).errors[0]["type"]
    assert Task.objects.count() == 8


def test_void_attempts_are_missing_and_leave_nothing(hand: Hand) -> None:
    tasks = running(hand, 4)
    batch = [hand.ran(task, lambda cqt: [cqt.subtask(echo, 1)][:0]) for task in tasks]
    for item in batch[::2]:
        item.claimed = stale(item.claimed)
    assert set(complete(batch)) == {tasks[1].id, tasks[3].id}
    assert [status(task) for task in tasks] == [R, W, R, W]
    assert Task.objects.count() == 6
    hand.run_all()


# --- a culprit that is locked --------------------------------------------------------------------


@on_postgres
def test_a_held_row_keeps_up_nobody_else(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_MS", 200)
    tasks = running(hand, 8)
    batch = [hand.ending(task, Succeeded()) for task in tasks]
    with elsewhere(lock(tasks[0])):
        began = time.monotonic()
        written = complete_each(batch)
        took = time.monotonic() - began
        assert set(written.statuses) == {task.id for task in tasks[1:]}
        assert [item.claimed.id for item, _ in written.held_up] == [tasks[0].id]
        assert {status(task) for task in tasks[1:]} == {S}
        assert 4 * 0.2 <= took < 3, "one patience for each level of halving"
        with pytest.raises(OperationalError):
            complete(batch)
    assert complete(batch) == dict.fromkeys((task.id for task in tasks), S)
    assert status(tasks[0]) is S


@on_postgres
def test_a_held_parent_keeps_up_its_own_children_only(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_MS", 200)
    roots = running(hand, 4)
    for root in roots:
        hand.run(root, lambda cqt: [cqt.subtask(echo, 1)][:0])
    children = [Task.objects.get(parent=root) for root in roots]
    hand.claim()
    batch = [hand.ending(child, Succeeded()) for child in children]
    with elsewhere(lock(roots[2])):
        written = complete_each(batch)
        assert [status(root) for root in roots] == [S, S, W, S]
        assert status(children[2]) is R, "everything or nothing for each task"
    assert [item.claimed.id for item, _ in written.held_up] == [children[2].id]
    complete(batch)
    assert status(roots[2]) is S


@on_postgres
def test_somebody_chains_onto_a_task_while_it_ends(hand: Hand) -> None:
    (task,) = running(hand, 1)
    made: list[Task] = []
    with ThreadPoolExecutor(1) as pool, elsewhere(lambda: made.append(task.chain(echo, 1))):
        ended = pool.submit(closing, lambda: hand.run(task, lambda cqt: 41))
        wait_until(somebody_waits)
    assert ended.result(10) is S
    row = fresh(made[0])
    assert (row.status, row.previous_result) == ("Q", 41)
    hand.run(made[0])


@on_postgres
def test_a_link_committed_behind_an_end_in_flight_is_released(hand: Hand) -> None:
    (task,) = running(hand, 1)
    links: list[Task] = []
    with ThreadPoolExecutor(1) as pool:
        with elsewhere(lambda: module._complete_all([hand.ending(task, Succeeded(result=41))])):
            made = pool.submit(closing, lambda: links.append(task.chain(echo, 1)))
            wait_until(somebody_waits)
        made.result(10)
    assert (status(links[0]), fresh(links[0]).previous_result) == ("Q", 41)
    hand.run(links[0])


# --- an answer that is lost ----------------------------------------------------------------------


def test_a_second_call_tells_what_the_first_has_written(hand: Hand) -> None:
    tasks = running(hand, 3)
    outcomes = [Succeeded(result=1), retrying(delay=60), failure()]
    batch = [hand.ending(task, outcome) for task, outcome in zip(tasks, outcomes, strict=True)]
    first = complete(batch)
    before = list(Task.objects.order_by("id").values())
    assert complete(batch) == first == dict(zip((t.id for t in tasks), [S, Y, F], strict=True))
    assert list(Task.objects.order_by("id").values()) == before


@on_postgres
@pytest.mark.parametrize("after", ["own rows", "children", "streams", "commit"])
def test_a_connection_that_dies_in_a_completion_is_no_loss(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    tasks = running(hand, 3)
    batch = [
        hand.ran(task, lambda cqt: [cqt.log("said"), cqt.subtask(echo, 1), 0][2]) for task in tasks
    ]
    name = {
        "own rows": "end_attempts",
        "children": "_spawn",
        "streams": "append",
        "commit": "_complete_all",
    }[after]
    real, killed = getattr(module, name), []

    def then_die(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        if not killed:
            killed.append(_kill_this_connection())
            if after == "commit":
                raise InterfaceError("the answer never came")
        return answer

    monkeypatch.setattr(module, name, then_die)
    with pytest.raises((OperationalError, InterfaceError)):
        complete(batch)
    connection.close()
    assert {status(task) for task in tasks} == ({W} if after == "commit" else {R})
    assert set(complete(batch).values()) == {W}
    assert Task.objects.count() == 6
    assert LogLine.objects.count() == 3
    hand.run_all()
    assert {status(task) for task in tasks} == {S}


def _kill_this_connection() -> int:
    pid: int = connection.connection.info.backend_pid
    with ThreadPoolExecutor(1) as pool:
        pool.submit(closing, lambda: _terminate(pid)).result(10)
    return pid


def _terminate(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not _is_there(pid))


def _is_there(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
        return cursor.fetchone() is not None


def test_a_database_that_refuses_everything_is_reported_and_nothing_is_lost(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = running(hand, 4)
    batch = [hand.ending(task, Succeeded()) for task in tasks]
    calls: list[int] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        raise DatabaseError("cannot execute UPDATE in a read-only transaction")

    with monkeypatch.context() as patch:
        patch.setattr(module, "end_attempts", refuse)
        with pytest.raises(DatabaseError):
            complete(batch)
    assert len(calls) == 1, "nothing is gained by halving"
    assert {status(task) for task in tasks} == {R}
    assert set(complete(batch).values()) == {S}


def test_an_integrity_error_of_the_engine_is_not_a_conflict() -> None:
    from cq.workflow.transaction import is_conflict

    assert not is_conflict(IntegrityError("CHECK constraint failed: cq_task_priority"))
    assert is_conflict(IntegrityError('duplicate key … "cq_task_unique_waiting"'))
    assert I != F

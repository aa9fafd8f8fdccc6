"""The record of a task: its log, its progress, how long it is kept, and the signals around it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cq import signals, task
from cq.definition.status import Status
from cq.models import LogLine, Progress, Stream, Task
from cq.testing import drain
from cq.workflow.retention import prune
from tests.sampleapp.tasks import (
    add,
    fail,
    flaky,
    grow,
    log_lines,
    log_then_trim,
    noop,
    report_progress,
    track_items,
)

pytestmark = pytest.mark.usefixtures("database")


@task(atomic=False, retries=1, backoff=0)
def log_and_fail_once(cqt: Any) -> None:
    cqt.log(f"attempt {cqt.attempt}", publish=False)
    if cqt.attempt == 1:
        raise ValueError("once")


@task
def log_atomically(cqt: Any, fails: bool) -> None:
    cqt.log("before")
    if fails:
        raise ValueError("rolled back")


@task(atomic=False)
def log_levels(cqt: Any) -> None:
    cqt.log("quiet", logging.DEBUG)
    cqt.log("loud", level="error")
    cqt.log("50 % of {x} \0")
    cqt.log(None)


def fresh(row: Task) -> Task:
    row.refresh_from_db()
    return row


# --- the log ------------------------------------------------------------------------------------


def test_lines_have_a_message_a_time_a_level_and_an_origin() -> None:
    row = log_levels.delay()
    drain()
    lines = row.logs
    assert [(line["message"], line["level"]) for line in lines] == [
        ("quiet", 10),
        ("loud", 40),
        ("50 % of {x} \ufffd", 20),
        ("None", 20),
    ]
    assert {line["origin"] for line in lines} == {str(row.id)}
    assert all(abs(timezone.now() - line["timestamp"]) < timedelta(minutes=1) for line in lines)
    assert row.format_logs() == "quiet\nloud\n50 % of {x} \ufffd\nNone"


def test_one_sequence_per_tree_without_holes() -> None:
    root = grow.delay(4, 2)
    drain()
    lines = list(LogLine.objects.order_by("seq").values_list("seq", "root"))
    assert lines == [(number, root.id) for number in range(1, 16)]
    assert len(root.logs) == 15
    leaf = Task.objects.filter(depth=3).first()
    assert leaf is not None
    assert leaf.format_logs() == "level 1"
    assert Stream.objects.get().seq == 15


def test_a_limit_trims_before_numbering() -> None:
    row = log_then_trim.delay(100, 10)
    drain()
    assert row.format_logs().split("\n") == [*(f"line {n}" for n in range(92, 101)), "done"]
    assert list(LogLine.objects.order_by("seq").values_list("seq", flat=True)) == [*range(1, 11)]


def test_lines_of_a_failed_attempt_are_kept() -> None:
    row = log_and_fail_once.delay()
    drain()
    assert row.format_logs() == "attempt 1\nattempt 2"
    assert list(LogLine.objects.order_by("seq").values_list("attempt", flat=True)) == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_lines_survive_the_roll_back_of_an_atomic_body(fails: bool) -> None:
    row = log_atomically.delay(fails)
    drain()
    assert row.format_logs() == "before"


def test_many_lines_of_an_async_body() -> None:
    row = log_lines.delay(300)
    drain()
    assert [line["message"] for line in row.logs] == [f"line {n}" for n in range(1, 301)]


async def test_logs_on_a_loop() -> None:
    row = await noop.adelay()
    assert await row.alogs() == []


# --- progress -----------------------------------------------------------------------------------


def test_the_last_progress_is_recorded() -> None:
    row = report_progress.delay(7)
    drain()
    progress = Progress.objects.get(task=row.id)
    assert (progress.done, progress.total, progress.message) == (7, 7, "step 7")
    assert progress.root == row.id


def test_track() -> None:
    row = track_items.delay(["a", "b", "c"])
    drain()
    assert fresh(row).result == ["a", "b", "c"]
    progress = Progress.objects.get(task=row.id)
    assert (progress.done, progress.total) == (3, 3)


# --- how long -----------------------------------------------------------------------------------


def kept_for(row: Task) -> timedelta:
    fresh(row)
    assert row.finished is not None
    assert row.result_expiry is not None
    # SQLite's own clock has milliseconds.
    return timedelta(seconds=round((row.result_expiry - row.finished).total_seconds(), 2))


def test_success_is_kept_for_a_week_and_failure_for_a_month() -> None:
    done, failed = add.delay(1), fail.delay()
    drain()
    assert kept_for(done) == timedelta(days=7)
    assert kept_for(failed) == timedelta(days=30)


def test_a_call_may_say_how_long() -> None:
    done = add.using(result_ttl=60).delay(1)
    failed = fail.using(result_ttl=0).delay()
    link = done.chain(add, 1, result_ttl=5)
    drain()
    assert kept_for(done) == timedelta(seconds=60)
    assert kept_for(failed) == timedelta(0)
    assert kept_for(link) == timedelta(seconds=5)


def test_what_is_over_is_pruned() -> None:
    gone, kept = add.using(result_ttl=0).delay(1), add.delay(2)
    drain()
    prune()
    assert not Task.objects.filter(id=gone.id).exists()
    assert fresh(kept).result == 2


@task(atomic=False, store_result=False)
def forgets(cqt: Any, fails: bool) -> str:
    if fails:
        raise ValueError("kept all the same")
    return "forgotten"


def test_a_function_may_store_errors_only() -> None:
    done, failed = forgets.delay(False), forgets.delay(True)
    drain()
    assert (fresh(done).status, done.result) == (Status.SUCCESS, None)
    assert (fresh(failed).error, len(failed.errors)) == ("kept all the same", 1)


# --- signals ------------------------------------------------------------------------------------


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """Everything the public signals said, in order."""
    found: list[tuple[str, Any]] = []
    receivers = {}
    for name in ("task_enqueued", "task_started", "task_finished", "task_retried"):

        def receive(sender: Any, signal: Any, name: str = name, **facts: Any) -> None:
            found.append((name, facts))

        receivers[name] = receive
        getattr(signals, name).connect(receive)
    yield found
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


def test_the_signals_of_a_run(heard: list[tuple[str, Any]]) -> None:
    row = flaky.delay(2)
    drain()
    facts = {"task_id": row.id, "func_name": flaky.name}
    assert heard == [
        ("task_enqueued", {"task": row}),
        ("task_started", facts | {"attempt": 1}),
        ("task_retried", facts | {"attempt": 1, "delay": 0.0}),
        ("task_started", facts | {"attempt": 2}),
        ("task_finished", facts | {"attempt": 2, "status": Status.SUCCESS}),
    ]


@pytest.mark.parametrize("body", [noop, log_atomically, add], ids=lambda body: body.__name__)
def test_each_kind_of_body_is_told_of(heard: list[tuple[str, Any]], body: Any) -> None:
    body.delay(*([True] if body is log_atomically else [1] if body is add else []))
    drain()
    status = Status.FAILURE if body is log_atomically else Status.SUCCESS
    assert [name for name, _ in heard] == ["task_enqueued", "task_started", "task_finished"]
    assert heard[-1][1]["status"] == status


def test_a_merged_call_is_not_enqueued(heard: list[tuple[str, Any]]) -> None:
    for _ in range(2):
        noop.using(coalesce=True).delay()
    assert [name for name, _ in heard] == ["task_enqueued"]


def test_a_receiver_that_raises_harms_nobody() -> None:
    def receive(**facts: Any) -> None:
        raise RuntimeError("of the receiver")

    for signal in (signals.task_started, signals.task_finished):
        signal.connect(receive)
    try:
        row = noop.delay()
        drain()
    finally:
        for signal in (signals.task_started, signals.task_finished):
            signal.disconnect(receive)
    assert fresh(row).status == Status.SUCCESS

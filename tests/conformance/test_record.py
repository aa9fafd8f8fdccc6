"""The record: one sequence for each tree, 1 to n without a hole, whoever writes at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction

from cq.definition.outcome import Succeeded
from cq.models import LogLine, Progress, Stream, Task
from cq.models import streams as module
from cq.models.progress_rows import ProgressRow, write_progress
from cq.models.streams import Line, append
from cq.models.transitions import Claimed
from cq.workflow.completion import complete
from cq.workflow.recording import Recorder
from cq.workflow.transaction import engine_transaction, repeated
from tests.conformance.connections import closing, together
from tests.conformance.driving import (
    E,
    F,
    Hand,
    S,
    W,
    by_name,
    failure,
    line,
    on_postgres,
    retrying,
    stale,
    status,
)
from tests.sampleapp.tasks import echo, noop
from tests.waiting import wait_until


def flush(lines: Sequence[Line]) -> list[int]:
    """What the recorder does with lines: the numbers they got."""

    def work() -> list[int]:
        with engine_transaction() as db:
            return [item.seq for item in append(db, lines)]

    return repeated(work)


def record(root: Any) -> list[str]:
    """The messages of a tree, after a look at their numbers."""
    found = list(LogLine.objects.filter(root=root.id).order_by("seq").values_list("seq", "message"))
    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    stream = Stream.objects.filter(root=root.id).first()
    assert (stream.seq if stream else 0) == len(found)
    return [message for _, message in found]


def test_lines_of_a_tree_have_one_sequence(hand: Hand) -> None:
    root = noop.delay()
    claimed = hand.take(root)
    assert flush([line(claimed, "r1"), line(claimed, "r2")]) == [1, 2]
    hand.run(
        claimed, lambda cqt: [cqt.log("r3"), cqt.subtask(echo, "a"), cqt.subtask(echo, "b"), 0][3]
    )
    first, second = hand.claim()
    assert flush([line(first, "a1"), line(second, "b1"), line(first, "a2")]) == [4, 5, 6]
    hand.run(second, lambda cqt: cqt.log("b2"))
    hand.run(first, lambda cqt: cqt.log("a3"))
    assert record(root) == ["r1", "r2", "r3", "a1", "b1", "a2", "b2", "a3"]
    assert status(root) is S


def test_lines_under_a_void_token_are_discarded(hand: Hand) -> None:
    task, other = noop.delay(), noop.delay()
    claimed = hand.take(task)
    assert flush([line(stale(claimed), "never"), line(hand.held[other.id], "kept")]) == [1]
    assert flush([line(stale(claimed))]) == []
    task.revoke()
    assert flush([line(claimed, "too late")]) == []
    assert (record(task), record(other)) == ([], ["kept"])
    hand.run(other)


def test_lines_of_every_attempt_are_kept(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    hand.end(claimed, retrying(), lines=[line(claimed, "first")])
    assert flush([line(claimed, "a late flush of the first")]) == [2]
    claimed = hand.take(task)
    assert flush([line(claimed, "second")]) == [3]
    hand.end(claimed, failure(), lines=[line(claimed, "the end")])
    assert record(task) == ["first", "a late flush of the first", "second", "the end"]
    assert [row["message"] for row in task.logs] == record(task)


def test_a_closed_record_takes_no_more_lines(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    hand.end(claimed, Succeeded(), lines=[line(claimed, "the last")])
    assert flush([line(claimed, "after the end")]) == []
    assert record(task) == ["the last"]


def test_a_level_beyond_the_column_is_cut(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    flush([line(claimed, "loud", 10**9), line(claimed, "soft", -(10**9))])
    levels = LogLine.objects.order_by("seq").values_list("level", flat=True)
    assert list(levels) == [32767, -32767]
    hand.run(claimed)


def test_progress_is_one_row_and_the_last_value(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    for done in (1, 2):
        with engine_transaction() as db:
            write_progress(
                db, [ProgressRow(task.id, claimed.token, task.id, done, 10, f"step {done}")]
            )
    row = Progress.objects.get()
    assert (row.task, row.root, row.done, row.total, row.message) == (
        task.id,
        task.id,
        2,
        10,
        "step 2",
    )
    hand.run(claimed)


# --- at once -------------------------------------------------------------------------------------


def test_flushes_and_completions_at_once_leave_no_hole(hand: Hand) -> None:
    roots = [noop.delay() for _ in range(3)]
    for root in roots:
        hand.run(root, lambda cqt: [cqt.subtask(echo, number) for number in range(8)][:0])
    claims = hand.claim()
    assert len(claims) == 24

    def work(mine: Sequence[Claimed]) -> None:
        for turn in range(4):
            flush([line(claimed, f"{claimed.id} {turn}") for claimed in mine])
        complete([hand.ending(c, Succeeded(), lines=[line(c, f"{c.id} 4")]) for c in mine])

    assert together([lambda mine=claims[n::6]: work(mine) for n in range(6)]) == [None] * 6
    for root in roots:
        messages = record(root)
        assert len(messages) == 8 * 5
        for claimed in claims:
            own = [text for text in messages if text.startswith(str(claimed.id))]
            assert own == [f"{claimed.id} {turn}" for turn in range(len(own))]
        assert status(root) is S
        assert Stream.objects.get(root=root.id).open is False


@on_postgres
def test_a_line_is_never_seen_before_one_with_a_lower_number(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    stop, seen = Event(), []

    def read() -> None:
        while not stop.is_set():
            numbers = list(LogLine.objects.order_by("seq").values_list("seq", flat=True))
            seen.append(numbers == list(range(1, len(numbers) + 1)))

    def write() -> None:
        for number in range(40):
            flush([line(claimed, str(number))] * 3)

    def writers_then_stop() -> None:
        together([write] * 4)
        stop.set()

    together([read, writers_then_stop])
    assert len(seen) > 5
    assert all(seen)
    assert len(record(task)) == 4 * 40 * 3
    hand.run(claimed)


@on_postgres
@pytest.mark.parametrize("first_line", [True, False], ids=["no stream yet", "a stream"])
@pytest.mark.parametrize("winner", ["adoption", "flush"])
def test_a_flush_and_an_adoption_at_once_lose_no_line(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, first_line: bool, winner: str
) -> None:
    parent, child = noop.delay(), echo.delay("c")
    hand.claim()
    claimed = hand.held[child.id]
    before = [] if first_line else [line(claimed, "c1")]
    flush(before)
    ended = hand.ran(parent, lambda cqt: [cqt.log("p1"), child][1])
    meets, goes_on = Event(), Event()
    real = module._advance if winner == "adoption" else module._move_record

    def held_up(db: Any, *args: Any) -> Any:
        if not meets.is_set():
            meets.set()
            goes_on.wait(10)
        return real(db, *args)

    name = "_advance" if winner == "adoption" else "_move_record"
    lines = [line(claimed, "c2"), line(claimed, "c3")]
    slow, quick = (
        (lambda: flush(lines), lambda: complete([ended]))
        if winner == "adoption"
        else (lambda: complete([ended]), lambda: flush(lines))
    )
    with patched(monkeypatch, name, held_up) as mine, ThreadPoolExecutor(2) as pool:
        late = pool.submit(closing, mine(slow))
        assert meets.wait(10)
        early = pool.submit(closing, quick)
        if winner == "adoption":
            early.result(10)
        goes_on.set()
        late.result(10)
        early.result(10)
    expected = [*(item.message for item in before), "c2", "c3", "p1"]
    assert sorted(record(parent)) == sorted(expected)
    assert record(child) == []
    assert not Stream.objects.filter(root=child.id).exists()
    hand.run(claimed)
    assert status(parent) is S


@contextmanager
def patched(monkeypatch: pytest.MonkeyPatch, name: str, replacement: Any) -> Iterator[Any]:
    """Replace a function of the streams for the work that is wrapped, and for no other thread."""
    chosen: set[int] = set()
    real = getattr(module, name)

    def choose(*args: Any) -> Any:
        return (replacement if threading.get_ident() in chosen else real)(*args)

    def wrap(work: Any) -> Any:
        def run() -> Any:
            chosen.add(threading.get_ident())
            return work()

        return run

    monkeypatch.setattr(module, name, choose)
    yield wrap


def test_the_recorder_flushes_what_running_attempts_say(hand: Hand) -> None:
    recorder = Recorder(max_lines=100)
    first, second = noop.delay(), noop.delay()
    hand.claim()
    buffers = {claimed.id: recorder.open(claimed) for claimed in hand.held.values()}
    for number in range(3):
        for claimed in hand.held.values():
            buffers[claimed.id].add(line(claimed, f"{number}"))
    assert len(recorder.flush()) == 6
    assert recorder.flush() == []
    claimed = hand.held[first.id]
    buffers[first.id].add(line(claimed, "the rest"), publish=False)
    assert recorder.flush() == []
    hand.end(claimed, Succeeded(), lines=recorder.settle(buffers[first.id]))
    assert record(first) == ["0", "1", "2", "the rest"]
    assert record(second) == ["0", "1", "2"]
    hand.run(second)


def test_a_body_that_rolls_back_keeps_the_lines_that_were_flushed(hand: Hand) -> None:
    task = noop.delay()
    claimed = hand.take(task)
    flush([line(claimed, "flushed")])
    with transaction.atomic():
        transaction.set_rollback(True)
    hand.end(claimed, failure(), lines=[line(claimed, "unflushed")])
    assert record(task) == ["flushed", "unflushed"]
    assert LogLine.objects.first().level == logging.INFO
    assert {status(task), F} == {F}


def test_lines_of_a_revoked_tree_end_with_the_revoke(hand: Hand) -> None:
    root = noop.delay()
    assert hand.run(root, lambda cqt: [cqt.log("r1"), cqt.subtask(echo, "a"), None][2]) is W
    child = by_name(root)["a"]
    claimed = hand.take(child)
    flush([line(claimed, "a1")])
    root.revoke()
    assert hand.end(claimed, Succeeded(), lines=[line(claimed, "a2")]) is None
    assert record(root) == ["r1", "a1"]
    assert (status(child), Task.objects.count()) == (E, 2)
    wait_until(lambda: not Stream.objects.filter(open=True).exists())


def test_a_line_is_shown_before_it_is_recorded_or_not_at_all(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unnumbered line that came after its numbered one would stay on the page for ever."""
    from cq.workflow import recording

    task = noop.delay()
    held = hand.take(task)
    recorder, told = Recorder(max_lines=100), list[str]()
    buffer = recorder.open(held)
    buffer.add(line(held))

    def settle() -> None:
        recorder.settle(buffer)
        told.append("recorded")

    def publish(root: str, lines: Sequence[Any]) -> None:
        if told:
            return
        settled = pool.submit(settle)
        with suppress(TimeoutError):
            settled.result(0.3)
        told.append("shown")

    monkeypatch.setattr(recording, "dialect", lambda: SimpleNamespace(is_postgres=False))
    monkeypatch.setattr(recording.publisher, "watched", lambda root: True)
    monkeypatch.setattr(recording.publisher, "lines", publish)
    with ThreadPoolExecutor(2) as pool, recording.writer_lock:
        pool.submit(recorder.flush).result(10)
    assert told == ["shown", "recorded"]
    assert recorder.flush() == []


def test_what_is_too_much_for_the_record_is_counted_in_its_last_line(
    hand: Hand, settings: Any
) -> None:
    settings.CQ = {"MAX_LINES": 3}
    task = noop.delay()
    hand.run(task, lambda cqt: [cqt.log(number) for number in range(10)][:0])
    *kept, last = record(task)
    assert kept == ["0", "1", "2"]
    assert last.startswith(
        "7 more lines are not in the record. An attempt may record 3, which is CQ"
    )
    marked = LogLine.objects.get(root=task.id, seq=4)
    assert (marked.level, marked.task, marked.attempt) == (logging.WARNING, task.id, 1)

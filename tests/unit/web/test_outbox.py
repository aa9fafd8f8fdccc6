"""The window of a slow reader (B31)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cq.web.outbox import Outbox
from cq.web.protocol import Limits


class Wire:
    """What was sent, and a clock."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.now = 0.0

    async def send(self, text: str) -> None:
        self.frames.append(json.loads(text))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def outbox(wire: Wire) -> Outbox:
    return Outbox(wire.send, Limits(window=10, stall=5), wire.clock)


async def test_frames_are_numbered_from_one(outbox: Outbox, wire: Wire):
    await outbox.send({"type": "snap"})
    await outbox.send({"type": "end"})
    assert [frame["frame"] for frame in wire.frames] == [1, 2]


async def test_a_line_weighs_one_and_so_does_any_other_frame(outbox: Outbox):
    await outbox.send({"type": "log", "lines": [{}] * 9})
    assert not outbox.is_full
    await outbox.send({"type": "state"})
    assert outbox.is_full


async def test_an_ack_frees_what_it_covers_once(outbox: Outbox):
    await outbox.send({"type": "log", "lines": [{}] * 10})
    await outbox.send({"type": "state"})
    assert outbox.ack(1)
    assert not outbox.ack(1)
    assert not outbox.is_full
    assert outbox.ack(10**9)
    assert not outbox.ack(10**9)


async def test_it_stalls_when_it_stays_full(outbox: Outbox, wire: Wire):
    await outbox.send({"type": "log", "lines": [{}] * 10})
    wire.now = 5
    assert not outbox.has_stalled
    wire.now = 5.1
    assert outbox.has_stalled


async def test_any_progress_of_the_reader_starts_the_clock_again(outbox: Outbox, wire: Wire):
    for _ in range(3):
        await outbox.send({"type": "log", "lines": [{}] * 10})
    wire.now = 4
    assert outbox.ack(1)
    assert outbox.is_full
    wire.now = 8
    assert not outbox.has_stalled
    wire.now = 9.1
    assert outbox.has_stalled


async def test_a_reader_that_keeps_up_never_stalls(outbox: Outbox, wire: Wire):
    for number in range(1, 100):
        await outbox.send({"type": "log", "lines": [{}] * 10})
        wire.now += 4
        assert outbox.ack(number)
    assert not outbox.has_stalled


async def test_long_lines_fill_it_as_many_lines_do(wire: Wire):
    outbox = Outbox(wire.send, Limits(window_chars=10_000), wire.clock)
    await outbox.send({"type": "log", "lines": [{"message": "x" * 6_000}]})
    assert not outbox.is_full
    await outbox.send({"type": "log", "lines": [{"message": "x" * 6_000}]})
    assert outbox.is_full
    assert outbox.ack(1)
    assert not outbox.is_full

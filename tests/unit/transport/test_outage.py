"""Waits that grow to two seconds, and one line of log per outage."""

from __future__ import annotations

import logging

import pytest

from cq.transport.outage import LONGEST_WAIT, QUIET, Outage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_waits_double_up_to_the_cap() -> None:
    outage = Outage("It", rand=lambda: 1.0)
    waits = [outage.failed(OSError()) for _ in range(8)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_jitter_takes_up_to_half_of_a_wait() -> None:
    outage = Outage("It", rand=lambda: 0.0)
    waits = [outage.failed(OSError()) for _ in range(2000)]
    assert waits[0] == 0.05
    assert waits[-1] == LONGEST_WAIT / 2


def test_an_outage_is_said_once_and_its_end_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cq.transport")
    outage = Outage("The task layer 'cq'", clock=clock)
    for _ in range(50):
        outage.failed(ConnectionRefusedError("port 6379 refuses"))
    clock.now += 7.5
    outage.over()
    outage.over()
    first, last = caplog.messages
    assert "The task layer 'cq' failed with ConnectionRefusedError: port 6379 refuses." in first
    assert last == "The task layer 'cq' works again after 7.5 s."


def test_a_silent_error_is_given_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    Outage("It").failed(TimeoutError())
    assert "TimeoutError: no answer in time" in caplog.text


def test_a_layer_that_flaps_does_not_flood_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cq.transport")
    outage = Outage("It", clock=clock)
    for _ in range(100):
        outage.failed(OSError("no"))
        outage.over()
    assert len(caplog.messages) == 2
    clock.now += QUIET
    outage.failed(OSError("no"))
    assert len(caplog.messages) == 3
    assert outage.total == 101


def test_another_kind_of_failure_is_said_as_well(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F20: behind a connection that was closed stands the reason."""
    caplog.set_level(logging.INFO, "cq.transport")
    outage = Outage("It", clock=clock)
    for _ in range(20):
        outage.failed(ConnectionError("closed by server"))
        outage.failed(PermissionError("a password is wanted"))
        clock.now += 2
    outage.over()
    first, second, last = caplog.messages
    assert "closed by server" in first
    assert "a password is wanted" in second
    assert last == "It works again after 40.0 s."


def test_success_starts_the_waits_anew() -> None:
    outage = Outage("It", rand=lambda: 1.0)
    for _ in range(5):
        outage.failed(OSError())
    assert outage.ongoing
    outage.over()
    assert not outage.ongoing
    assert outage.failed(OSError()) == 0.1

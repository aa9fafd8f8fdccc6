"""A blocked loop is noticed, named once per stall, and measured while it lasts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from cq.worker.watchdog import Watchdog
from tests.waiting import await_until

STALL = 0.05


def hold_the_loop(until: threading.Event) -> None:
    """The blocking call whose name has to appear in the log."""
    until.wait(10)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[threading.Event]:
    """Set when the watchdog has reported a stall."""
    heard = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has not turned" in record.getMessage():
                heard.set()

    handler = Handler()
    logger = logging.getLogger("cq.worker")
    logger.addHandler(handler)
    yield heard
    logger.removeHandler(handler)


def test_a_stall_is_reported_once_with_its_stack_and_the_running_tasks(
    said: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    measured = []

    async def main() -> None:
        watchdog = Watchdog(
            asyncio.get_running_loop(), stall=STALL, running=lambda: {"shop.tasks.slow", "a.b"}
        )
        watchdog.start()
        measured.append(watchdog.stalled_for())
        hold_the_loop(said)
        threading.Event().wait(5 * STALL)  # the same stall, long enough for a second report
        measured.append(watchdog.stalled_for())
        await await_until(lambda: watchdog.stalled_for() <= STALL)
        measured.append(watchdog.stalled_for())
        watchdog.stop()
        watchdog._thread.join(5)
        assert watchdog.stalls == 1

    asyncio.run(main())
    reports = [text for text in caplog.messages if "has not turned" in text]
    assert len(reports) == 1
    assert "hold_the_loop" in reports[0]
    assert "a.b, shop.tasks.slow" in reports[0]
    assert "make the task a plain def" in reports[0]
    before, during, after = measured
    assert before < STALL
    assert during >= 5 * STALL
    assert after <= STALL
    assert any("turns again after" in text for text in caplog.messages)


def test_a_loop_that_turns_is_left_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        watchdog = Watchdog(asyncio.get_running_loop(), stall=0.5)
        watchdog.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await asyncio.Event().wait()
        assert watchdog.stalled_for() < 0.5
        watchdog.stop()

    asyncio.run(main())
    assert not caplog.messages


def test_a_process_that_stood_still_is_not_blamed_on_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As after SIGSTOP: the thread that watches slept far past its own time-out."""

    class Answering:
        def call_soon_threadsafe(self, answer: object) -> None:
            self.answer = answer

    times = iter([0.0, 60.0, 60.0, 60.0])
    loop = Answering()
    watchdog = Watchdog(loop, stall=STALL, clock=lambda: next(times))  # type: ignore[arg-type]
    threading.Timer(1.5 * STALL, lambda: loop.answer()).start()  # type: ignore[operator]
    watchdog._look()
    assert watchdog.stalls == 0
    assert "stood still for 60.0 s" in caplog.text
    assert watchdog.stalled_for() == 0


def test_many_running_tasks_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        names = [f"task{number:03}" for number in range(500)]
        watchdog = Watchdog(asyncio.get_running_loop(), stall=STALL, running=lambda: names)
        watchdog._report()

    asyncio.run(main())
    assert "task019 and 480 more" in caplog.text


def test_a_closed_loop_ends_the_watch() -> None:
    loop = asyncio.new_event_loop()
    watchdog = Watchdog(loop, stall=STALL)
    loop.close()
    watchdog.start()
    watchdog._thread.join(5)
    assert not watchdog._thread.is_alive()
    assert watchdog.stalled_for() == 0

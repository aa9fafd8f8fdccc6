"""The mailbox between threads and a loop: bounded, in order, and no wake is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cq.transport.inbox import Inbox


class CountingLoop:
    """Counts wakes; can be told to fail like a closed loop or an impatient user."""

    def __init__(self) -> None:
        self.wakes = 0
        self.error: BaseException | None = None

    def call_soon_threadsafe(self, wake: object) -> None:
        if self.error is not None:
            raise self.error
        self.wakes += 1


def make(bound: int = 10) -> tuple[Inbox[int], CountingLoop]:
    loop = CountingLoop()
    return Inbox(bound, loop, lambda: None), loop  # type: ignore[arg-type]


def test_a_burst_wakes_the_loop_once() -> None:
    inbox, loop = make()
    for number in range(5):
        inbox.put(number)
    assert loop.wakes == 1
    assert inbox.take() == [0, 1, 2, 3, 4]
    inbox.put(5)
    assert loop.wakes == 1, "awake until the reader says it sleeps"
    inbox.asleep = True
    inbox.put(6)
    assert loop.wakes == 2


def test_the_newest_survive_a_full_box() -> None:
    inbox, _ = make(bound=3)
    for number in range(10):
        inbox.put(number)
    assert inbox.take() == [7, 8, 9]
    assert inbox.dropped == 7


@pytest.mark.parametrize("error", [RuntimeError("Event loop is closed"), KeyboardInterrupt()])
def test_a_wake_that_failed_is_tried_again_by_the_next(error: BaseException) -> None:
    inbox, loop = make()
    loop.error = error
    with pytest.raises(type(error)):
        inbox.put(1)
    loop.error = None
    inbox.put(2)
    assert loop.wakes == 1
    assert inbox.take() == [1, 2]


async def test_no_item_of_many_threads_is_left_behind() -> None:
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()
    inbox: Inbox[int] = Inbox(100_000, loop, rung.set)
    total, writers = 20_000, 4

    def write() -> None:
        for number in range(total // writers):
            inbox.put(number)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    seen = 0
    while seen < total:
        seen += len(inbox.take())
        rung.clear()
        inbox.asleep = True
        if seen < total and not inbox:
            async with asyncio.timeout(5):
                await rung.wait()
        inbox.asleep = False
    for thread in threads:
        thread.join()
    assert seen == total
    assert inbox.dropped == 0

"""
Waiting for an event: the one place in the tests that looks again.

Both forms look at once, then at growing intervals of at most 50 ms, and return the first
truthy value; when the time is up they fail with the name of what never happened.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar

T = TypeVar("T")
LONGEST_PAUSE = 0.05


def wait_until(predicate: Callable[[], T], timeout: float = 10.0) -> T:
    """Return the first truthy value of the predicate, or fail after `timeout` seconds."""
    deadline, pause, never = time.monotonic() + timeout, 0.002, Event()
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(predicate, value, timeout))
        never.wait(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def await_until(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], timeout: float = 10.0
) -> T:
    """The same on a loop; the predicate may be a coroutine function."""
    deadline, pause = time.monotonic() + timeout, 0.002
    while True:
        found = predicate()
        value: T = await found if inspect.isawaitable(found) else found  # type: ignore[assignment]
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_complaint(predicate, value, timeout))
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _complaint(predicate: Callable[..., object], value: object, timeout: float) -> str:
    try:
        source = inspect.getsource(predicate).strip()
    except (OSError, TypeError):
        source = repr(predicate)
    return f"Not seen within {timeout:g} s (last value {value!r}): {source}"

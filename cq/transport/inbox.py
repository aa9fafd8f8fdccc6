"""
A bounded mailbox from any thread into one event loop.

Putting costs an append; the loop is woken once per burst, only when it sleeps. When it is
full the oldest item makes room and is counted, so that a caller never waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """
    Items put by any thread, taken by one loop.

    The reader declares itself asleep *before* it looks a last time, and a writer appends
    *before* it reads that flag: whichever comes second sees the other, so no wake is lost
    and no lock is needed. A wake too many is harmless.
    """

    __slots__ = ("_bound", "_items", "_loop", "_wake", "asleep", "dropped")

    def __init__(
        self, bound: int, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]
    ) -> None:
        self._items: deque[T] = deque(maxlen=bound)
        self._bound = bound
        self._loop = loop
        self._wake = wake
        self.asleep = True
        self.dropped = 0

    def put(self, item: T) -> None:
        """Leave an item; raises RuntimeError when the loop is closed."""
        if len(self._items) == self._bound:
            self.dropped += 1
        self._items.append(item)
        if self.asleep:
            try:
                self.asleep = False
                self._loop.call_soon_threadsafe(self._wake)
            except BaseException:  # also Ctrl-C: a flag left down would silence every later bell
                self.asleep = True
                raise

    def take(self) -> list[T]:
        """Empty the box; called by the loop alone."""
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items

    def __len__(self) -> int:
        return len(self._items)

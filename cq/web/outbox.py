"""
The outbox: numbers what a socket sends, and stops at a window the client has not acked.

The server below has no back-pressure: what is sent to a reader that stopped reading piles
up in memory. So a log line weighs one, any other frame weighs one, and beyond 500 unacked, or
512 KiB of text, nothing is sent until an ack comes.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from cq.web.protocol import Limits, encode
from cq.web.subscription import Frame

SendText = Callable[[str], Awaitable[None]]


class Outbox:
    """What is under way to one client; `clock` is monotonic."""

    def __init__(self, send: SendText, limits: Limits, clock: Callable[[], float]) -> None:
        self._send, self._limits, self._clock = send, limits, clock
        self._number = 0
        self._under_way: deque[tuple[int, int, int]] = deque()
        self._weight = self._chars = 0
        self._full_since: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether an ack must come before the next frame."""
        limits = self._limits
        return self._weight >= limits.window or self._chars >= limits.window_chars

    @property
    def has_stalled(self) -> bool:
        """Whether it has been full for too long."""
        since = self._full_since
        return since is not None and self._clock() - since > self._limits.stall

    async def send(self, frame: Frame) -> None:
        """Number a frame, count its weight, send it."""
        self._number += 1
        text = encode({**frame, "frame": self._number})
        weight = max(1, len(frame.get("lines", ())))
        self._under_way.append((self._number, weight, len(text)))
        self._weight += weight
        self._chars += len(text)
        if self.is_full and self._full_since is None:
            self._full_since = self._clock()
        await self._send(text)

    def ack(self, number: int) -> bool:
        """Forget the frames up to a number; False when that freed nothing."""
        before = self._weight
        while self._under_way and self._under_way[0][0] <= number:
            _, weight, chars = self._under_way.popleft()
            self._weight -= weight
            self._chars -= chars
        if self._weight == before:
            return False
        self._full_since = self._clock() if self.is_full else None
        return True

"""
The ids of tasks: UUID version 7 of RFC 9562, made here and known before the insert.

They begin with the time, so the rows of one minute lie together in an index, and within
one process each is larger than the one before, also when the clock steps back.
"""

import os
import sys
import threading
import time
from uuid import UUID

_RANDOM_BITS = 74
_FRESH_BITS = _RANDOM_BITS - 1
_VERSION = 7 << 76
_VARIANT = 0b10 << 62
_LOW_BITS = (1 << 62) - 1
_MIDDLE_BITS = (1 << 12) - 1


class _Source:
    """
    A source of version 7 ids, safe to share between threads and across a fork.

    Its state is one number, milliseconds above 74 random bits. A new millisecond draws
    new random bits, the highest one clear; within a millisecond, or after the clock went
    back, the last number grows by a random step, which cannot overflow in practice and
    would only run a little ahead of the clock if it did.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything: a forked child must not inherit a lock held by its parent."""
        # Reentrant, because a signal handler may call delay() while this thread holds it.
        self._lock = threading.RLock()
        self._last = 0

    def uuid7(self) -> UUID:
        """Return an id that no other process makes and that sorts after all made here."""
        random = int.from_bytes(os.urandom(10))
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._last >> _RANDOM_BITS:
                number = now << _RANDOM_BITS | random & (1 << _FRESH_BITS) - 1
            else:
                number = self._last + 1 + (random & 0xFFFF_FFFF)
            self._last = number
        moment, low = number >> _RANDOM_BITS, number & _LOW_BITS
        middle = number >> 62 & _MIDDLE_BITS
        return UUID(int=moment << 80 | _VERSION | middle << 64 | _VARIANT | low)


_source = _Source()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_source.restart)

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    uuid7 = _source.uuid7

__all__ = ["uuid7"]

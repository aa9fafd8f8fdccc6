"""
One outage of a layer: how long to wait, and what to say about it.

Failures in a row make the waits longer, up to two seconds with jitter; the first of each kind
is logged, and so is the end: a lost connection often hides what is said at the next try, such
as that a password is wanted. A layer that flaps gets one line for each kind in ten seconds.
"""

import logging
import random
import time
from collections.abc import Callable

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0
QUIET = 10.0

logger = logging.getLogger("cq.transport")


class Outage:
    """The memory of one link to a layer: is it down, since when, and was that said."""

    def __init__(
        self,
        what: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.what = what
        self.failures = 0
        self.total = 0
        self._clock = clock
        self._random = rand
        self._since = 0.0
        self._spoke: float | None = None
        self._spoken = False
        self._kinds: set[type[BaseException]] = set()

    @property
    def ongoing(self) -> bool:
        """Whether the last try failed."""
        return self.failures > 0

    def failed(self, error: BaseException) -> float:
        """Note a failure and return the seconds to wait before the next try."""
        self.failures += 1
        self.total += 1
        now = self._clock()
        if self.failures == 1:
            self._since, self._spoken = now, False
        if self.failures == 1 or type(error) not in self._kinds:
            self._speak(now, error)
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self.failures - 1, 10))
        return longest * (0.5 + self._random() / 2)

    def over(self) -> None:
        """Note a success."""
        if self.failures == 0:
            return
        if self._spoken:
            seconds = self._clock() - self._since
            logger.info("%s works again after %.1f s.", self.what, seconds)
        self.failures = 0
        self._spoken = False

    def _speak(self, now: float, error: BaseException) -> None:
        if self._spoke is None or now - self._spoke >= QUIET:
            self._spoke = now
            self._kinds.clear()
        elif type(error) in self._kinds:
            return
        self._kinds.add(type(error))
        self._spoken = True
        logger.warning(
            "%s failed with %s: %s. Nothing is lost: workers find tasks by polling. "
            "It is tried again at least every %g s; look at the layer's server.",
            self.what,
            type(error).__name__,
            str(error).rstrip(".") or "no answer in time",
            LONGEST_WAIT,
        )

"""
The watchdog: a thread that notices when the event loop stands still, and says who holds it.

One blocking call in an async task stops every other task, the claims and the completions
of the process. After LOOP_STALL the stack of the loop's thread is logged, once per stall;
the heartbeat asks `stalled_for()` and stops beating after LOOP_STALL_MAX, so that another
worker takes over what this one will never finish.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable

# A look per fifth of the limit finds a stall soon after the limit, at five wakes a second.
LOOKS_PER_STALL = 5
MAX_FRAMES = 30
MAX_NAMES = 20

logger = logging.getLogger("cq.worker")


class Watchdog:
    """Watches the loop that runs in the calling thread; made and started there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        stall: float = 1.0,
        running: Callable[[], Iterable[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._stall = stall
        self._running = running
        self._clock = clock
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._asked: float | None = None
        self._thread = threading.Thread(target=self._watch, name="cq-watchdog", daemon=True)
        self.stalls = 0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; safe to call twice."""
        self._stopping.set()
        self._answered.set()

    def stalled_for(self) -> float:
        """Seconds for which the loop has not answered; near zero while it turns. Any thread."""
        asked = self._asked
        return 0.0 if asked is None else self._clock() - asked

    def _watch(self) -> None:
        while not self._stopping.wait(self._stall / LOOKS_PER_STALL):
            self._look()

    def _look(self) -> None:
        """Ask the loop to answer, and wait for it however long it takes."""
        self._answered.clear()
        self._asked = self._clock()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:  # the loop is closed: the worker has ended
            self._stopping.set()
            self._asked = None
            return
        if not self._answered.wait(self._stall) and self._is_the_loop_alone():
            self.stalls += 1
            self._report()
            self._wait_out()
        self._asked = None

    def _is_the_loop_alone(self) -> bool:
        """False when this thread overslept too: then the whole process was stopped for a while."""
        asleep = self.stalled_for()
        if asleep < 2 * self._stall:
            return True
        logger.warning(
            "The whole process stood still for %.1f s: it was stopped, or a call held the "
            "interpreter. Its heartbeat stood still as well.",
            asleep,
        )
        self._asked = self._clock()
        return not self._answered.wait(self._stall)

    def _wait_out(self) -> None:
        while not self._answered.wait(self._stall) and not self._stopping.is_set():
            pass
        logger.warning("The event loop turns again after %.1f s.", self.stalled_for())

    def _report(self) -> None:
        try:
            names = sorted(self._running())
        except RuntimeError:  # the loop has just turned, and changed what is read here
            names = []
        shown = ", ".join(names[:MAX_NAMES]) or "none"
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        logger.warning(
            "The event loop has not turned for %.1f s; every async task of this worker waits. "
            "Await instead of blocking, or make the task a plain def. "
            "Running async tasks: %s%s. The loop is at:\n%s",
            self.stalled_for(),
            shown,
            more,
            self._stack(),
        )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "  (its thread has ended)"
        return "".join(traceback.format_stack(frame)[-MAX_FRAMES:])

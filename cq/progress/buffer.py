"""
What one attempt has said and not yet recorded: log lines, how far it has come, whom to tell.

The body writes from whatever thread or coroutine it runs on; the recorder empties the
buffer about ten times a second, and the attempt's completion takes what is left.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from cq.definition.payload import JSON
from cq.models.streams import Line


@dataclass(frozen=True, slots=True)
class ProgressValue:
    """How far a task says it has come; a total of None is unknown."""

    done: float
    total: float | None
    message: str


class AttemptBuffer:
    """The unrecorded lines and the latest progress of one attempt; safe from any thread."""

    def __init__(self, max_lines: int, wake: Callable[[], object] = lambda: None) -> None:
        self.flushing = threading.Lock()
        """Held while lines that were taken are on their way into the record."""
        self.progress: ProgressValue | None = None
        self.errorbacks: list[dict[str, JSON]] = []
        """To be called if this attempt is the one that ends the task badly."""
        self._lock = threading.Lock()
        self._held: list[Line] = []
        self._ready: list[Line] = []
        self._progress_changed = False
        self._shown: list[Line] = []
        self._max_lines = self._room = max_lines
        self._overflow: Line | None = None
        self._wake = wake
        self.dropped = 0
        """Lines that were more than an attempt may record; the last line of it says so."""

    def add(self, line: Line, *, publish: bool = True, limit: int | None = None) -> None:
        """
        Keep a line; with `publish` it and everything held back become ready.

        `limit` keeps only so many of the newest unnumbered lines, this one included.
        """
        with self._lock:
            if self._room <= 0:
                self.dropped += 1
                self._overflow = line
                return
            self._room -= 1
            self._held.append(line)
            if limit is not None:
                self._trim(max(limit, 1))
            if publish:
                self._ready += self._held
                self._held = []
        if publish:
            self._wake()

    def _trim(self, limit: int) -> None:
        # Lines on their way into the record have numbers; only the others can go.
        excess = len(self._ready) + len(self._held) - limit
        if excess > 0:
            self._room += excess
            from_ready = min(excess, len(self._ready))
            del self._ready[:from_ready]
            del self._held[: excess - from_ready]

    def set_progress(self, value: ProgressValue) -> None:
        """Note how far the task has come; only the latest value counts."""
        with self._lock:
            self.progress = value
            self._progress_changed = True
        self._wake()

    def take(self, *, everything: bool = False) -> list[Line]:
        """Take the lines that are ready, or all of them and what is to be said at the end."""
        with self._lock:
            taken = self._ready
            self._ready, self._shown = [], []
            if everything:
                taken += self._held
                self._held = []
                if self._overflow is not None:
                    taken.append(self._marker(self._overflow))
                    self._overflow = None
            return taken

    def _marker(self, last: Line) -> Line:
        text = (
            f"{self.dropped} more lines are not in the record. An attempt may record "
            f"{self._max_lines}, which is CQ['MAX_LINES']; Python logging has them all."
        )
        return replace(last, level=logging.WARNING, message=text)

    def put_back(self, lines: list[Line]) -> None:
        """Return lines that could not be recorded, in front of newer ones."""
        with self._lock:
            self._ready = lines + self._ready

    def unshown(self) -> list[Line]:
        """Lines that wait for their numbers and were not returned here before."""
        with self._lock:
            known = set(map(id, self._shown))
            fresh = [line for line in self._ready if id(line) not in known]
            self._shown = list(self._ready)
            return fresh

    def take_progress(self) -> ProgressValue | None:
        """Take the progress if it changed since it was last taken."""
        with self._lock:
            if not self._progress_changed:
                return None
            self._progress_changed = False
            return self.progress

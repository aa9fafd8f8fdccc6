"""
The meter: what the bodies of every contender count with, and what the driver reads.

A body calls `bump()`: one more in a file of its own process, mapped into memory, with the times
of the first, of the last and of each sixteenth one. That costs about a microsecond and needs no
server, so that it weighs the same on every contender. `stamp()` keeps one pair of times for a
latency. Standard library only: this runs in the environments of the peers.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = "CQ_BENCH_METER"
EVERY = 16
_MARKS = 1 << 17
_HEAD = struct.Struct("<QQQ")
_MARK = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")


class _Counter:
    """The open files of one process; a fork gets new ones at its first call."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.count = 0
        folder = Path(os.environ[FOLDER])
        with (folder / f"{self.pid}.count").open("w+b") as file:
            file.truncate(_HEAD.size + _MARKS * _MARK.size)
            self.map = mmap.mmap(file.fileno(), 0)
        # Each line is written at once and complete, whoever else forked from us.
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        self.stamps = os.open(folder / f"{self.pid}.stamps", flags)
        self.first = 0

    def close(self) -> None:
        """Let go of the files; tests do."""
        self.map.close()
        os.close(self.stamps)


_counter: _Counter | None = None
_making = threading.Lock()


def _mine() -> _Counter:
    global _counter
    if _counter is None or _counter.pid != os.getpid():
        # Two threads that both made the file would cut it off below each other's map.
        with _making:
            if _counter is None or _counter.pid != os.getpid():
                _counter = _Counter()
    return _counter


def _forked() -> None:
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def bump() -> None:
    """Count one task as done."""
    mine = _mine()
    with mine.lock:
        now = time.monotonic_ns()
        mine.first = mine.first or now
        mine.count += 1
        place, rest = divmod(mine.count, EVERY)
        if rest == 0 and place <= _MARKS:
            _MARK.pack_into(mine.map, _HEAD.size + (place - 1) * _MARK.size, now)
        _HEAD.pack_into(mine.map, 0, mine.count, mine.first, now)


def stamp(sent: int) -> None:
    """Keep when a task was sent (`time.monotonic_ns()`, one clock for all processes) and now."""
    os.write(_mine().stamps, _PAIR.pack(sent, time.monotonic_ns()))


@dataclass(frozen=True, slots=True)
class Run:
    """What one process counted; times in nanoseconds."""

    count: int
    first: int
    last: int
    marks: tuple[int, ...] = ()

    def done_by(self, moment: int) -> int:
        """How many it had done by then, exact to sixteen."""
        if moment >= self.last:
            return self.count
        return EVERY * sum(mark <= moment for mark in self.marks)


def counted(folder: Path) -> int:
    """How many tasks were done by now, by all processes."""
    total = 0
    for path in folder.glob("*.count"):
        with path.open("rb") as file:
            total += _MARK.unpack(file.read(_MARK.size).ljust(_MARK.size, b"\0"))[0]
    return total


def runs(folder: Path) -> list[Run]:
    """What each process counted."""
    found = []
    for path in folder.glob("*.count"):
        data = path.read_bytes()
        count, first, last = _HEAD.unpack_from(data)
        if count:
            places = range(min(count // EVERY, _MARKS))
            marks = tuple(
                _MARK.unpack_from(data, _HEAD.size + place * _MARK.size)[0] for place in places
            )
            found.append(Run(count, first, last, marks))
    return found


def stamps(folder: Path) -> list[tuple[int, int]]:
    """The kept pairs, in the order in which they were sent."""
    data = b"".join(path.read_bytes() for path in folder.glob("*.stamps"))
    return sorted((sent, started) for sent, started in _PAIR.iter_unpack(data))

"""
Recording: what running attempts have said becomes rows, together and in order.

One transaction for all attempts of a process, about ten times a second: it takes the
next numbers of each tree under the stream's row lock, so that the order of the sequence
is the order of the commits. The publisher hears of it after the commit.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import Error

from cq.failpoints import reached
from cq.models.progress_rows import ProgressRow, write_progress
from cq.models.sql import dialect
from cq.models.streams import Line, Recorded, append
from cq.models.transitions import Claimed
from cq.progress import publisher
from cq.progress.buffer import AttemptBuffer, ProgressValue
from cq.workflow.aftermath import tell_lines
from cq.workflow.transaction import engine_transaction, repeated, writer_lock

logger = logging.getLogger("cq.workflow")


@dataclass(slots=True)
class _Source:
    claimed: Claimed
    buffer: AttemptBuffer


class Recorder:
    """Gathers the buffers of running attempts and flushes them together."""

    def __init__(self, max_lines: int, wake: Callable[[], object] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._dirty: dict[UUID, _Source] = {}
        self._sources: dict[int, _Source] = {}
        self._last_words: list[ProgressRow] = []
        self._max_lines = max_lines
        self._wake = wake

    def open(self, claimed: Claimed) -> AttemptBuffer:
        """Make the buffer of an attempt that starts."""
        source = _Source(claimed, None)  # type: ignore[arg-type]
        source.buffer = AttemptBuffer(self._max_lines, lambda: self._note(source))
        return source.buffer

    def _note(self, source: _Source) -> None:
        with self._lock:
            first = not self._dirty
            self._dirty[source.claimed.token] = source
            self._sources[id(source.buffer)] = source
        if first:
            self._wake()

    def settle(self, buffer: AttemptBuffer) -> list[Line]:
        """Wait for a flush in flight and hand over what is not recorded; called at the end."""
        with self._lock:
            source = self._sources.pop(id(buffer), None)
        if source is None:
            # Nothing was ever published: what was held back is all there is.
            return buffer.take(everything=True)
        with buffer.flushing:
            lines = buffer.take(everything=True)
            value = buffer.take_progress()
        with self._lock:
            self._dirty.pop(source.claimed.token, None)
            if value is not None:
                self._last_words.append(_row(source.claimed, value))
        if value is not None:
            self._wake()
        return lines

    @property
    def is_dirty(self) -> bool:
        """Whether a flush has something to do."""
        return bool(self._dirty or self._last_words)

    def flush(self) -> list[Recorded]:
        """
        Record what is ready now; on a failure it is kept for the next flush.

        On SQLite nothing is started while a body holds the write lock: its lines, and those
        of others, are shown live until they can be recorded.
        """
        if not dialect().is_postgres:
            if not writer_lock.acquire(blocking=False):
                self._show_unrecorded()
                return []
            try:
                return self._flush()
            finally:
                writer_lock.release()
        return self._flush()

    def _flush(self) -> list[Recorded]:
        with self._lock:
            sources = list(self._dirty.values())
            self._dirty = {}
            rows, self._last_words = self._last_words, []
        held = [source for source in sources if source.buffer.flushing.acquire(blocking=False)]
        taken = [(source, source.buffer.take()) for source in held]
        lines = [line for _, found in taken for line in found]
        fresh = [
            _row(source.claimed, value)
            for source in held
            if (value := source.buffer.take_progress()) is not None
        ]
        try:
            reached("before_flush", [source.claimed for source in held])
            recorded = repeated(lambda: _write(lines, [*rows, *fresh]))
        except Exception as problem:
            for source, found in taken:
                source.buffer.put_back(found)
                self._note(source)
            with self._lock:
                self._last_words = [*rows, *fresh, *self._last_words]
            if not isinstance(problem, Error):
                raise
            logger.warning("Log lines wait for the database: %s", problem)
            return []
        finally:
            for source in held:
                source.buffer.flushing.release()
        reached("after_flush", [source.claimed for source in held])
        self._tell(recorded, [*rows, *fresh])
        return recorded

    def _tell(self, recorded: Sequence[Recorded], progress: Sequence[ProgressRow]) -> None:
        tell_lines(recorded)
        for row in progress:
            root = row.root.hex
            if publisher.watched(root):
                value = {"done": row.done, "total": row.total, "message": row.message}
                publisher.states(root, [publisher.node(row.task, progress=value)])

    def _show_unrecorded(self) -> None:
        with self._lock:
            sources = list(self._dirty.values())
        for source in sources:
            # Held until they are on their way: a completion that records them meanwhile would
            # be told of first, and what came after it would never be replaced by its number.
            if source.buffer.flushing.acquire(blocking=False):
                try:
                    root = source.claimed.root.hex
                    lines = source.buffer.unshown()
                    if lines and publisher.watched(root):
                        publisher.lines(root, [_unrecorded(line) for line in lines])
                finally:
                    source.buffer.flushing.release()


def _unrecorded(line: Line) -> publisher.Line:
    return publisher.line(
        seq=None,
        task=line.task,
        name=line.func_name,
        attempt=line.attempt,
        level=line.level,
        message=line.message,
        at=line.at,
    )


def _row(claimed: Claimed, value: ProgressValue) -> ProgressRow:
    return ProgressRow(
        claimed.id, claimed.token, claimed.root, value.done, value.total, value.message
    )


def _write(lines: Sequence[Line], progress: Sequence[ProgressRow]) -> list[Recorded]:
    if not lines and not progress:
        return []
    with engine_transaction() as db:
        if progress:
            write_progress(db, list({row.task: row for row in progress}.values()))
        return append(db, lines) if lines else []

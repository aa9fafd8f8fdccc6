"""
The completion service: ended attempts go into the rows, in batches without a linger.

Idle, it writes at once; busy, it gathers what ends while the previous write is under
way. It keeps what it cannot write until the database is back, and says how much that
is, so that no new work is claimed on top of it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial

from django.db import DatabaseError, Error, InterfaceError, connections

from cq.aio import Lane
from cq.definition.outcome import Retrying
from cq.definition.status import TERMINAL, Status
from cq.models.queries import database
from cq.progress.buffer import AttemptBuffer
from cq.signals import task_finished, task_retried
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

MAX_BATCH = 500
_LONGEST_PAUSE = 2.0


class Completer:
    """Writes down what attempts came to; owned by the worker, runs until it is drained."""

    def __init__(self, lane: Lane, recorder: Recorder, saved: Callable[[int], object]) -> None:
        self._lane = lane
        self._recorder = recorder
        self._saved = saved
        self._queue: list[tuple[Completion, AttemptBuffer]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.completed = 0
        self.void = 0

    def put(self, item: Completion, buffer: AttemptBuffer) -> None:
        """Hand over an ended attempt."""
        self._queue.append((item, buffer))
        self._idle.clear()
        self._wake.set()

    @property
    def unsaved(self) -> int:
        """Ended attempts that are not in the rows yet."""
        return len(self._queue)

    async def drain(self) -> None:
        """Return when everything handed over so far has been written."""
        await self._idle.wait()

    def close(self) -> None:
        """End `run` when nothing is left to write."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Write until closed."""
        failures = 0
        while True:
            if not self._queue:
                self._idle.set()
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._queue[:MAX_BATCH]
            try:
                await self._lane.run(self._write, batch)
            except (DatabaseError, InterfaceError, Error) as problem:
                failures += 1
                logger.warning("Completions wait for the database: %s", problem)
                pause = min(_LONGEST_PAUSE, 0.05 * 2**failures) * random.uniform(0.5, 1)
                await asyncio.sleep(pause)
                if failures > 2 and len(batch) > 1:
                    # What still fails goes to the end, so that it cannot hold up the others.
                    self._queue = [*self._queue[1:], self._queue[0]]
                continue
            failures = 0
            del self._queue[: len(batch)]
            self._saved(len(batch))

    def _write(self, batch: list[tuple[Completion, AttemptBuffer]]) -> None:
        for item, buffer in batch:
            item.lines += self._recorder.settle(buffer)
        try:
            statuses = complete([item for item, _ in batch])
        except Error:
            connections[database()].close_if_unusable_or_obsolete()
            raise
        for item, _ in batch:
            status = statuses.get(item.claimed.id)
            if status is None:
                self.void += 1
                logger.info(
                    "Attempt %d of %s was void: fenced.",
                    item.claimed.attempt,
                    item.claimed.id,
                )
            else:
                self.completed += 1
                _send_signals(item, status)


def _send_signals(item: Completion, status: Status) -> None:
    claimed = item.claimed
    send = partial(
        _robustly,
        task_id=claimed.id,
        func_name=claimed.func_name,
        attempt=claimed.attempt,
    )
    if status in TERMINAL and task_finished.receivers:
        send(task_finished, status=status)
    elif isinstance(item.outcome, Retrying) and task_retried.receivers:
        send(task_retried, delay=item.outcome.delay)


def _robustly(signal: object, **facts: object) -> None:
    signal.send_robust(sender=Completer, **facts)  # type: ignore[attr-defined]

"""
The completion service: ended attempts go into the rows, in batches without a linger.

Idle, it writes at once; busy, it gathers what ends while the previous write is under
way. It keeps what it cannot write until the database is back, and says how much that
is, so that no new work is claimed on top of it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from uuid import UUID

from django.db import Error

from cq.aio import Lane
from cq.definition.status import Status
from cq.execution.notices import tell_ended
from cq.progress.buffer import AttemptBuffer
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

MAX_BATCH = 500
_LONGEST_PAUSE = 2.0

Ended = tuple[Completion, AttemptBuffer]


class Completer:
    """Writes down what attempts came to; owned by the worker, runs until it is drained."""

    def __init__(
        self,
        lane: Lane,
        recorder: Recorder,
        saved: Callable[[int], object],
        *,
        count: Callable[[str, Status], object] = lambda queue, status: None,
    ) -> None:
        self._lane = lane
        self._recorder = recorder
        self._saved = saved
        self._count = count
        self._queue: list[Ended] = []
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
            except Exception as problem:  # noqa: BLE001 - what ended must be written, whatever happens
                failures += 1
                await self._failed(batch, problem, failures)
                continue
            failures = 0
            del self._queue[: len(batch)]
            self._saved(len(batch))

    async def _failed(self, batch: Sequence[Ended], problem: Exception, failures: int) -> None:
        if failures == 1:
            logger.warning(
                "%d completions wait for the database: %s",
                len(batch),
                problem,
                exc_info=None if isinstance(problem, Error) else problem,
            )
        if failures > 2 and len(batch) > 1:
            # What still fails goes to the end, so that it cannot hold up the others.
            self._queue = [*self._queue[1:], self._queue[0]]
        pause = min(_LONGEST_PAUSE, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)
        await asyncio.sleep(pause)

    @property
    def tokens(self) -> set[UUID]:
        """The claim tokens of what is not in the rows yet."""
        return {item.claimed.token for item, _ in self._queue}

    def _write(self, batch: list[Ended]) -> None:
        for item, buffer in batch:
            item.lines += self._recorder.settle(buffer)
        statuses = complete([item for item, _ in batch])
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
                self._count(item.claimed.queue, status)
                tell_ended(item.claimed, item.outcome, status)

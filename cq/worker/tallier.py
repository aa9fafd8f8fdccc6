"""
The tallier: what this worker completed, added to the minutes that people look at.

Counting costs a completion one addition in memory; every few seconds the sums go into the
rows in one statement, and the first worker of a minute samples what waits and runs. What
cannot be written is dropped: these numbers are for eyes, nothing depends on them.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from django.db import Error, connections

from cq.definition.status import ERROR, TERMINAL, Status
from cq.models import Sample, figures, minutes
from cq.models.minutes import Ended
from cq.models.sql import Dialect, database, dialect
from cq.workflow.transaction import writer_lock

logger = logging.getLogger("cq.worker")

FLUSH_SECONDS = 3.0

InDatabase = Callable[[Callable[[], None]], Awaitable[None]]


class Tallier:
    """Counts ended tasks; `count` may be called from any thread."""

    def __init__(self, in_db: InDatabase, worker: Callable[[], UUID | None]) -> None:
        self._in_db = in_db
        self._worker = worker
        self._lock = threading.Lock()
        self._ended: dict[str, Ended] = {}
        self._sampled = 0

    def count(self, queue: str, status: Status) -> None:
        """Note that a task of this queue has come to this status."""
        if status not in TERMINAL:
            return
        with self._lock:
            ended = self._ended.setdefault(queue, Ended())
            ended.done += 1
            ended.failed += status in ERROR

    async def run(self) -> None:
        """Write the sums every few seconds until cancelled."""
        while True:
            await self._in_db(self.flush)
            await asyncio.sleep(FLUSH_SECONDS * random.uniform(0.8, 1.2))

    def flush(self) -> None:
        """Write the sums so far, and the sample of this minute if nobody has."""
        # On SQLite a body may hold the one write lock for long; then this is for later.
        if not writer_lock.acquire(blocking=False):
            return
        try:
            self._write(dialect())
        except Error as problem:
            logger.debug("The tallies of a few seconds were dropped: %s", problem)
            connections[database()].close_if_unusable_or_obsolete()
        finally:
            writer_lock.release()

    def _write(self, db: Dialect) -> None:
        with self._lock:
            ended, self._ended = self._ended, {}
        worker, minute = self._worker(), int(time.time() // 60)
        if worker is not None:
            minutes.add_tallies(db, worker, ended)
        if minute != self._sampled:
            self._sampled = minute
            sample(db)


def sample(db: Dialect) -> None:
    """Sample what waits and runs, once a minute however many workers ask."""
    minute = minutes.begin_minute(db)
    if minute is None:
        return
    now = figures.moment(db)
    workers = figures.workers(db)
    queues = figures.queues(db, workers, [], now)
    late = figures.latency(db)
    live = [worker for worker in workers if worker.is_alive]
    oldest = min((queue.oldest for queue in queues if queue.oldest), default=None)
    minutes.keep_sample(
        db,
        Sample(
            minute=minute,
            waiting=sum(queue.depth for queue in queues),
            running=sum(len(worker.running) for worker in live),
            slots=sum(worker.slots for worker in live),
            oldest=None if oldest is None else max((now - oldest).total_seconds(), 0),
            latency_p50=late.p50,
            latency_p95=late.p95,
        ),
    )

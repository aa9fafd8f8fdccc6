"""
The worker's own row: made at the start, kept alive by the heartbeat, retired at the end.

Others may declare a worker dead that was frozen for too long, and take what it held. It
then stops everything it still runs, which counts for nothing, and goes on under a new
row. A worker is one row per start and never comes back under an old one.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from uuid import UUID

from django.db import Error, InterfaceError, InternalError, OperationalError

from cq.aio import Lane
from cq.failpoints import reached
from cq.models import Worker, workers
from cq.models.sql import dialect
from cq.worker.heartbeat import Heartbeat
from cq.worker.options import WorkerOptions
from cq.worker.process_identity import this_process

logger = logging.getLogger("cq.worker")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LEAVE_SECONDS = 2.0


class Membership:
    """Enlists one worker among the others; used on its loop alone."""

    def __init__(
        self,
        lane: Lane,
        options: WorkerOptions,
        names: Sequence[str],
        *,
        held: Callable[[], list[tuple[UUID, UUID]]],
        void: Callable[[list[UUID] | None], object],
        renewed: Callable[[], object],
        stalled_for: Callable[[], float],
    ) -> None:
        self._lane = lane
        self._options = options
        self._names = sorted(names)
        self._held = held
        self._void = void
        self._renewed = renewed
        self._stalled_for = stalled_for
        self._loop = asyncio.get_running_loop()
        self._dead = asyncio.Event()
        self._heartbeat: Heartbeat | None = None
        self.worker: UUID | None = None
        """The id of the row; None while there is none."""

    async def join(self, stop: asyncio.Event) -> None:
        """
        Insert the row and begin to beat, or return without one when told to stop before.

        An outage is waited out; raises what the database says of a table that is not there.
        """
        pause = _FIRST_PAUSE
        while self.worker is None:
            try:
                self.worker = await self._lane.run(self._enlist)
            except (OperationalError, InterfaceError, InternalError) as problem:
                if pause == _FIRST_PAUSE:
                    logger.warning("The row of this worker waits for the database: %s", problem)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.wait()
                        return
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._heartbeat = Heartbeat(
            self.worker,
            held=self._held,
            void=lambda tokens: self._on_loop(partial(self._void, tokens)),
            declared_dead=lambda worker: self._on_loop(partial(self._declared_dead, worker)),
            stalled_for=self._stalled_for,
        )
        self._heartbeat.start()

    async def run(self) -> None:
        """Go on under a new row whenever the old one was declared dead; ends by cancellation."""
        pause = _FIRST_PAUSE
        while True:
            await self._dead.wait()
            try:
                self.worker = await self._lane.run(self._enlist)
            except Error as problem:
                logger.debug("A new worker row waits for the database: %s", problem)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            self._dead.clear()
            if self._heartbeat is not None:
                self._heartbeat.worker = self.worker
            logger.warning("This worker goes on as %s.", self.worker)
            self._renewed()

    def _declared_dead(self, worker: UUID) -> None:
        if worker != self.worker:
            return
        logger.warning(
            "Worker %s was declared dead: its heartbeat was not seen for too long. What it "
            "ran is stopped, and runs elsewhere.",
            worker,
        )
        self.worker = None
        self._void(None)
        self._dead.set()

    def _enlist(self) -> UUID:
        row = Worker(
            queues=None if self._options.queues is None else list(self._options.queues),
            names=self._names,
            slots=self._options.slots,
            **asdict(this_process()),
        )
        workers.enlist(row)
        return row.id

    def say(self, state: str) -> None:
        """Let the row say what the worker is doing, from the next beat on."""
        if self._heartbeat is not None:
            self._heartbeat.state = state
            self._heartbeat.beat_now()

    def look_at_tokens(self) -> None:
        """Ask now, not at the next beat, whether somebody took what is held here."""
        if self._heartbeat is not None:
            self._heartbeat.beat_now()

    async def leave(self) -> None:
        """Stop beating and retire the row; the last thing a worker does."""
        reached("before_leave")
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                if self._heartbeat is not None:
                    await asyncio.to_thread(self._heartbeat.stop)
                if self.worker is not None:
                    await self._lane.run(self._retire)

    def _retire(self) -> None:
        if self.worker is not None:
            workers.retire(dialect(), self.worker)

    def _on_loop(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(call)

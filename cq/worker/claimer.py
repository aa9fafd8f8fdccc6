"""
The claimer: one per process, the only one who takes tasks.

It looks at the table when a bell rang, when a slot frees after a full claim, when the
next future row becomes due, and every CQ["POLL"] seconds in any case. It takes exactly
as many tasks as there are free slots, of the kinds that fit them, and never holds one
that it cannot start at once.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from uuid import UUID

from django.db import Error, connections

from cq import conf
from cq.aio import Lane
from cq.models.queries import database
from cq.models.transitions import Claimed, Want
from cq.transport import dispatcher
from cq.workflow.claim import claim, seconds_to_next

logger = logging.getLogger("cq.worker")

_LONGEST_PAUSE = 2.0
MAX_CLAIM = 500


class Claimer:
    """Claims for one process; `room` says what fits now, `start` takes what was claimed."""

    def __init__(
        self,
        lane: Lane,
        room: Callable[[], list[Want]],
        start: Callable[[Claimed], object],
        *,
        queues: Sequence[str] | None,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        self._lane = lane
        self._room = room
        self._start = start
        self._queues = queues
        self._tick = tick
        self._wake = asyncio.Event()
        self._stopping = False
        self._next_due: float | None = None
        self.worker: UUID | None = None
        self._hungry: set[tuple[str, ...]] = set()
        self.is_idle = asyncio.Event()
        """Set when the last look found nothing more to take."""
        self.claims = 0

    def ring(self, *_: object) -> None:
        """Look at the table soon; called on the loop."""
        self.is_idle.clear()
        self._wake.set()

    def slot_freed(self) -> None:
        """Look again if the last claim left something."""
        if self.has_more:
            self._wake.set()

    @property
    def has_more(self) -> bool:
        """Whether a pool's last claim came back full: more may be waiting for its slots."""
        return bool(self._hungry)

    def stop(self) -> None:
        """Claim no more; a claim in flight is still handed over."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Claim until stopped; an outage of the database only makes it late."""
        failures = 0
        while not self._stopping:
            self._tick()
            try:
                await self._look()
                failures = 0
            except Error as problem:
                failures += 1
                if failures == 1:
                    logger.warning("Claims wait for the database: %s", problem)
                self._next_due = min(_LONGEST_PAUSE, 0.05 * 2**failures) * random.uniform(0.5, 1)
            await self._pause()

    async def _pause(self) -> None:
        if self._stopping:
            return
        poll = conf.current().poll * random.uniform(0.8, 1.2)
        if self._next_due is not None:
            poll = min(poll, max(self._next_due, 0.001))
        try:
            async with asyncio.timeout(poll):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        # Tasks that are ready to end do so first: what they free goes into one claim.
        await asyncio.sleep(0)
        self._wake.clear()
        while not self._stopping:
            wants = self._room()
            if not wants:
                return
            claimed = await self._lane.run(self._claim, wants)
            self.claims += 1
            for task in claimed:
                self._start(task)
            if not self._note_hunger(claimed, wants):
                break
            # The next idle worker, wherever it is, may have room for the rest.
            dispatcher.ring(claimed[-1].queue, [claimed[-1].id.hex])
            await asyncio.sleep(0)
        self._next_due = await self._lane.run(self._read_next_due)
        if not self._wake.is_set():
            self.is_idle.set()

    def _note_hunger(self, claimed: Sequence[Claimed], wants: Sequence[Want]) -> bool:
        """Note which pools may find more; those without room now keep what is known."""
        any_full = False
        for want in wants:
            names = frozenset(want.names)
            if sum(1 for task in claimed if task.func_name in names) >= want.limit:
                self._hungry.add(want.names)
                any_full = True
            else:
                self._hungry.discard(want.names)
        return any_full

    def _claim(self, wants: Sequence[Want]) -> list[Claimed]:
        assert self.worker is not None
        try:
            return claim(self.worker, wants, self._queues)
        except Error:
            connections[database()].close_if_unusable_or_obsolete()
            raise

    def _read_next_due(self) -> float | None:
        return seconds_to_next(self._queues)

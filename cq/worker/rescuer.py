"""
The rescuer: every worker watches the others, and takes over what a dead one held.

A worker is dead when its process is seen to be gone on this very host, or when its beat
did not change over a whole lease of this observer's own clock, without a failed look or
a gap in between: after an outage of the database, or of the observer, the window starts
again, so that one hiccup never looks like everybody's death.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.db import Error

from cq import conf
from cq.aio import Lane
from cq.failpoints import reached
from cq.models import workers
from cq.models.sql import dialect
from cq.worker.process_identity import ProcessIdentity, is_gone
from cq.workflow.rescue import declare_dead, end_overdue, park_unroutable, rescue_tasks

logger = logging.getLogger("cq.worker")

_HOUSEKEEPING_EVERY = 3


@dataclass(slots=True)
class _Sighting:
    beat: int
    since: float


class Rescuer:
    """Looks after the other workers every heartbeat, and after the table now and then."""

    def __init__(
        self,
        lane: Lane,
        own: Callable[[], UUID | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane = lane
        self._own = own
        self._clock = clock
        self._seen: dict[UUID, _Sighting] = {}
        self._last_look: float | None = None
        self._looks = 0
        self.rescued = 0

    async def run(self) -> None:
        """Watch for ever; ends by cancellation."""
        while True:
            try:
                self.rescued += await self._lane.run(self.look)
            except Error as problem:
                self._forget()
                logger.debug("The rescuer waits for the database: %s", problem)
            await asyncio.sleep(conf.current().heartbeat * random.uniform(0.9, 1.1))

    def look(self) -> int:
        """Look once; return how many tasks were taken from dead workers."""
        now = self._clock()
        heartbeat, lease = conf.current().heartbeat, conf.current().lease
        if self._last_look is not None and now - self._last_look > 2 * heartbeat + 1:
            self._forget()
        self._last_look = now
        live = workers.live(dialect())
        for other in live:
            if other.id == self._own() or not self._is_dead(other, now, lease):
                continue
            if declare_dead(other.id, other.beat):
                reached("after_declare_dead")
                logger.warning("Worker %s is dead; its tasks are rescued.", other.id)
        self._seen = {other.id: self._seen[other.id] for other in live if other.id in self._seen}
        rescued = rescue_tasks()
        if self._looks % _HOUSEKEEPING_EVERY == 0:
            end_overdue()
            park_unroutable()
        self._looks += 1
        return rescued

    def _is_dead(self, other: workers.Beat, now: float, lease: float) -> bool:
        if is_gone(ProcessIdentity(**other.identity)):
            return True
        sighting = self._seen.get(other.id)
        if sighting is None or sighting.beat != other.beat:
            self._seen[other.id] = _Sighting(other.beat, now)
            return False
        return now - sighting.since >= lease

    def _forget(self) -> None:
        self._seen = {}
        self._last_look = None

"""
The scheduler: the service of a worker that fires repeating tasks when they are due.

Every worker may run one; the database decides who fires a tick. Crontabs tick at whole
minutes, so a scheduler that looks at each whole minute of the database's clock misses
nothing, edits included, and costs next to nothing. It looks every ten seconds besides, for
a machine that was suspended and a clock that was set.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from django.db import Error, connections

from cq.models.queries import database
from cq.workflow.schedule import FireResult, fire_due

logger = logging.getLogger("cq.schedule")

LOOK_SECONDS = 10.0
MINUTE = 60.0
BACKOFF_SECONDS = 2.0

InDatabase = Callable[[Callable[[], FireResult]], Awaitable[FireResult]]


class Scheduler:
    """Fires what is due; `in_db` runs a function on the worker's engine lane."""

    def __init__(self, in_db: InDatabase, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._in_db = in_db
        self._look_seconds = look_seconds
        self._is_down = False
        self.fired = 0

    async def run(self) -> None:
        """Fire for ever; an outage of the database only makes it late. Ends by cancellation."""
        while True:
            pause = await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Fire what is due now and return the seconds until the next look."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            result = await self._in_db(_fire)
        except Error as error:
            # The worker outlives its database; one line per outage is enough.
            logger.log(
                logging.DEBUG if self._is_down else logging.WARNING,
                "Repeating tasks wait for the database: %s",
                error,
            )
            self._is_down = True
            return BACKOFF_SECONDS * random.uniform(0.5, 1)
        self._is_down = False
        self.fired += len(result.tasks)
        for task in result.tasks:
            logger.info("Fired %s as %s.", task.func_name, task.id)
        # The clock was read before the firing; `began` leaves out what that took.
        return max(0.0, began + self._pause(result) - loop.time())

    def _pause(self, result: FireResult) -> float:
        now = result.now
        pause = min(self._look_seconds, MINUTE - now.second - now.microsecond / 1e6)
        if result.next_due is not None:
            pause = min(pause, (result.next_due - now).total_seconds())
        return pause


def _fire() -> FireResult:
    try:
        return fire_due()
    except Error:
        # A session that broke stays broken until it is closed on its own thread.
        connections[database()].close_if_unusable_or_obsolete()
        raise

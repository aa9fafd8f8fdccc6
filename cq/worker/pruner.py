"""
The pruner: the service of a worker that deletes what has been kept long enough.

Every worker runs one; they pass over each other's rows. It looks once a minute, and while
a look finds a full batch the next one follows at once, so that it keeps up with a cluster
that ends thousands of tasks a second and costs nothing in one that does not.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from django.db import Error, connections

from cq.models.queries import database
from cq.workflow.retention import BATCH, prune

logger = logging.getLogger("cq.retention")

LOOK_SECONDS = 60.0
REST_SECONDS = 0.05

InDatabase = Callable[[Callable[[], int]], Awaitable[int]]


class Pruner:
    """Deletes expired trees in portions; `in_db` runs a function on the worker's engine lane."""

    def __init__(self, in_db: InDatabase) -> None:
        self._in_db = in_db
        self.pruned = 0

    async def run(self) -> None:
        """Prune for ever; an outage of the database only makes it late. Ends by cancellation."""
        # Workers that start together spread out.
        pause = random.uniform(0, LOOK_SECONDS)
        while True:
            await asyncio.sleep(pause)
            pause = await self.look()

    async def look(self) -> float:
        """Delete one portion and return the seconds until the next."""
        try:
            gone = await self._in_db(_prune)
        except Error as error:
            logger.debug("Pruning waits for the database: %s", error)
            gone = 0
        self.pruned += gone
        # The rest between portions leaves the lane to rescues and firings.
        return REST_SECONDS if gone >= BATCH else LOOK_SECONDS * random.uniform(0.8, 1.2)


def _prune() -> int:
    try:
        return prune()
    except Error:
        connections[database()].close_if_unusable_or_obsolete()
        raise

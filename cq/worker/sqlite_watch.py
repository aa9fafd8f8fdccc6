"""
Noticing what other processes commit to a SQLite file, without a layer.

`PRAGMA data_version` changes when another connection has committed, and costs some
microseconds: a shell beside an embedded worker is answered within a few hundredths of a
second instead of at the next poll.
"""

import asyncio
from collections.abc import Callable

from django.db import Error, connections

from cq.aio import Lane
from cq.models.queries import database

LOOK_SECONDS = 0.05


class SqliteWatch:
    """Calls `on_commit` when somebody else has committed since the last look."""

    def __init__(self, lane: Lane, on_commit: Callable[[], object]) -> None:
        self._lane = lane
        self._on_commit = on_commit
        self._version: int | None = None

    async def run(self) -> None:
        """Look for ever; ends by cancellation."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                version = await self._lane.run(_data_version)
            except Error:
                continue  # the claimer speaks of outages
            if self._version is not None and version != self._version:
                self._on_commit()
            self._version = version


def _data_version() -> int:
    with connections[database()].cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        version: int = cursor.fetchone()[0]
        return version

"""procrastinate on PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

from procrastinate import App, PsycopgConnector

from benchmarks import meter
from benchmarks.contender import Command, Load, NotOffered, OnLoop, Rows, database_url, script

app = App(connector=PsycopgConnector(conninfo=database_url()))


@app.task
async def noop() -> None:
    """Do nothing."""
    meter.bump()


@app.task
def noop_sync() -> None:
    """Do nothing, in a thread."""
    meter.bump()


@app.task
async def nap() -> None:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    meter.bump()


@app.task
async def stamp(value: int) -> None:
    """Keep when it began."""
    meter.stamp(value)


BODIES = {"noop": noop, "noop_sync": noop_sync, "nap": nap, "stamp": stamp}


class Procrastinate(OnLoop):
    """Two processes with a loop each; it keeps no results."""

    title = "procrastinate"
    store = "PostgreSQL"
    settings = "2 × `procrastinate worker --concurrency 100` (the naps 50), LISTEN/NOTIFY on."
    kinds = ("async", "sync")
    rows = Rows("procrastinate_jobs", {}, skipped=("id",))

    def prepare(self) -> None:
        self.loop.run_until_complete(app.open_async())
        self.loop.run_until_complete(app.schema_manager.apply_schema_async())

    def worker_commands(self, load: Load) -> list[Command]:
        slots = "50" if load == "nap" else "100"
        name = "benchmarks.contenders.procrastinate.app"
        command = [script("procrastinate"), "--log-level", "warning", "-a", name]
        return [[*command, "worker", "--concurrency", slots]] * 2

    async def aenqueue(self, body: str, *args: Any) -> Any:
        given = {"value": args[0]} if args else {}
        return await self._task(body).defer_async(**given)

    def bulk(self, body: str, count: int) -> None:
        self.loop.run_until_complete(self._task(body).batch_defer_async(*[{}] * count))

    def _task(self, body: str) -> Any:
        if body not in BODIES:
            raise NotOffered
        return BODIES[body]

    def close(self) -> None:
        self.loop.run_until_complete(app.close_async())


contender = Procrastinate()

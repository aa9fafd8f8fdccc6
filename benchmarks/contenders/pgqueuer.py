"""pgqueuer on PostgreSQL; run as a module, it is one worker process."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.core.completion import CompletionWatcher
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks import meter
from benchmarks.contender import Command, Load, OnLoop, Rows, database_url, module

BATCH = 100


class PgQueuerPeer(OnLoop):
    """Two processes with a loop each; a done job leaves its table for a log."""

    title = "pgqueuer"
    store = "PostgreSQL"
    settings = (
        "2 × its manager, run from Python, on asyncpg, batches of 100, no cap on tasks in flight "
        "(the naps 50); it stores no results: the round trip ends with its completion watcher "
        "(debounce 2 ms), which tells the end but no value."
    )
    kinds = ("async", "sync")
    rows = Rows("pgqueuer", {}, skipped=("id",))

    def prepare(self) -> None:
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.connection = await asyncpg.connect(database_url())
        self.listener = await asyncpg.connect(database_url())
        self.watcher: CompletionWatcher | None = None
        self.queries = Queries(AsyncpgDriver(self.connection))
        await self.queries.install()

    def worker_commands(self, load: Load) -> list[Command]:
        return [module(__name__, *(["50"] if load == "nap" else []))] * 2

    async def aenqueue(self, body: str, *args: Any) -> Any:
        ids = await self.queries.enqueue(body, json.dumps(args).encode())
        return ids[0], args

    def bulk(self, body: str, count: int) -> None:
        calls = self.queries.enqueue([body] * count, [b"[]"] * count, [0] * count)
        self.loop.run_until_complete(calls)

    async def aresult(self, handle: Any) -> Any:
        job, args = handle
        if self.watcher is None:
            driver = AsyncpgDriver(self.listener)
            self.watcher = CompletionWatcher(
                driver, queries=Queries(driver), debounce=timedelta(milliseconds=2)
            )
            await self.watcher.__aenter__()
        state = await asyncio.wait_for(self.watcher.wait_for(job), 30)
        return args[0] if state == "successful" else None

    def close(self) -> None:
        if self.watcher is not None:
            self.loop.run_until_complete(self.watcher.__aexit__(None, None, None))
        self.loop.run_until_complete(self.connection.close())
        self.loop.run_until_complete(self.listener.close())


contender = PgQueuerPeer()


async def work(limit: int | None) -> None:
    """Be a worker until SIGTERM."""
    manager = PgQueuer.from_asyncpg_connection(await asyncpg.connect(database_url()))

    @manager.entrypoint("noop")
    async def noop(job: Any) -> None:
        meter.bump()

    @manager.entrypoint("noop_sync")
    async def noop_sync(job: Any) -> None:
        # Its own advice for blocking code.
        await asyncio.to_thread(meter.bump)

    @manager.entrypoint("nap")
    async def nap(job: Any) -> None:
        await asyncio.sleep(0.05)
        meter.bump()

    @manager.entrypoint("stamp")
    async def stamp(job: Any) -> None:
        meter.stamp(json.loads(job.payload)[0])

    @manager.entrypoint("echo")
    async def echo(job: Any) -> None:
        pass

    # It asks for a cap of at least two batches.
    batch = limit // 2 if limit else BATCH
    await manager.run(batch_size=batch, max_concurrent_tasks=limit)


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]) if len(sys.argv) > 1 else None))

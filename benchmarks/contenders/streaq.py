"""streaQ on Redis."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from streaq import Worker

from benchmarks import meter
from benchmarks.contender import Command, Load, OnLoop, redis_url, script

SLOTS = "CQ_BENCH_SLOTS"

worker = Worker(redis_url=redis_url(), concurrency=int(os.environ.get(SLOTS, "100")))


@worker.task
async def noop() -> None:
    """Do nothing."""
    meter.bump()


@worker.task
def noop_sync() -> None:
    """Do nothing, in a thread."""
    meter.bump()


@worker.task
async def nap() -> None:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    meter.bump()


@worker.task
async def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@worker.task
async def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


@worker.task
async def join() -> None:
    """Follow the children."""
    meter.stamp(0)


BODIES = {"noop": noop, "noop_sync": noop_sync, "nap": nap, "stamp": stamp, "echo": echo}


class Streaq(OnLoop):
    """Two processes with a loop each."""

    title = "streaQ"
    store = "Redis"
    settings = (
        "2 × `streaq run`, concurrency 100 (the naps 50); results by its own waiting. "
        "It has no option against a log line at each start and end; they go to a file."
    )
    kinds = ("async", "sync")

    def prepare(self) -> None:
        # Left open until the process ends: only the task that opened it may close it.
        self.loop.run_until_complete(worker.__aenter__())

    def worker_commands(self, load: Load) -> list[Command]:
        slots = "50" if load == "nap" else "100"
        name = "benchmarks.contenders.streaq:worker"
        return [["env", f"{SLOTS}={slots}", script("streaq"), "run", name]] * 2

    async def aenqueue(self, body: str, *args: Any) -> Any:
        return await BODIES[body].enqueue(*args)

    def bulk(self, body: str, count: int) -> None:
        calls = [BODIES[body].enqueue() for _ in range(count)]
        self.loop.run_until_complete(worker.enqueue_many(calls))

    async def aresult(self, handle: Any) -> Any:
        return (await handle.result(30)).result

    def fan_out(self, children: int) -> None:
        async def spread() -> None:
            calls = [noop.enqueue() for _ in range(children)]
            await worker.enqueue_many(calls)
            await join.enqueue().start(after=[call.id for call in calls])

        self.loop.run_until_complete(spread())


contender = Streaq()

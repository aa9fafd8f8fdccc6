"""What SAQ on Redis and SAQ on PostgreSQL share: the bodies and the contender."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from saq import Queue

from benchmarks import meter
from benchmarks.contender import Command, Load, OnLoop, script

SLOTS = "CQ_BENCH_SLOTS"


async def noop(ctx: Any) -> None:
    """Do nothing."""
    meter.bump()


async def nap(ctx: Any) -> None:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    meter.bump()


async def stamp(ctx: Any, *, value: int) -> None:
    """Keep when it began."""
    meter.stamp(value)


async def echo(ctx: Any, *, value: Any) -> Any:
    """Give the argument back."""
    return value


def worker_settings(queue: Queue) -> dict[str, Any]:
    """What `saq` is told of a worker."""
    return {
        "queue": queue,
        "functions": [noop, nap, stamp, echo],
        "concurrency": int(os.environ.get(SLOTS, "100")),
    }


class Saq(OnLoop):
    """Two processes with a loop each."""

    kinds = ("async",)
    settings = "2 × `saq`, concurrency 100 (the naps 50); results polled for each 2 ms."
    module = ""
    url = ""

    def prepare(self) -> None:
        self.queue = Queue.from_url(self.url, name="bench")
        self.loop.run_until_complete(self.queue.connect())

    def worker_commands(self, load: Load) -> list[Command]:
        slots = "50" if load == "nap" else "100"
        command = ["env", f"{SLOTS}={slots}", script("saq"), f"{self.module}.settings", "--quiet"]
        return [command] * 2

    async def aenqueue(self, body: str, *args: Any) -> Any:
        given = {"value": args[0]} if args else {}
        return await self.queue.enqueue(body, timeout=0, retries=1, **given)

    async def aresult(self, handle: Any) -> Any:
        async with asyncio.timeout(30):
            # Its own waiting looks each half second on PostgreSQL, and on Redis it may miss
            # the message.
            while not handle.completed:
                await asyncio.sleep(0.002)
                await handle.refresh()
        return handle.result

    def close(self) -> None:
        self.loop.run_until_complete(self.queue.disconnect())

"""taskiq on Redis streams, which keep a message until it is acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import meter
from benchmarks.contender import Command, Load, OnLoop, redis_url, script

broker = RedisStreamBroker(redis_url(), queue_name="bench").with_result_backend(
    RedisAsyncResultBackend(redis_url(), result_ex_time=600)
)


@broker.task
async def noop() -> None:
    """Do nothing."""
    meter.bump()


@broker.task
def noop_sync() -> None:
    """Do nothing, in a thread."""
    meter.bump()


@broker.task
async def nap() -> None:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    meter.bump()


@broker.task
async def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@broker.task
async def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


BODIES = {"noop": noop, "noop_sync": noop_sync, "nap": nap, "stamp": stamp, "echo": echo}


class Taskiq(OnLoop):
    """Two processes with a loop each, under taskiq's own parent."""

    title = "taskiq"
    store = "Redis"
    settings = (
        "`RedisStreamBroker` with a result backend, `--workers 2 --max-async-tasks 100` (the naps "
        "50); results are polled for each 2 ms."
    )
    kinds = ("async", "sync")

    def prepare(self) -> None:
        self.loop.run_until_complete(broker.startup())

    def worker_commands(self, load: Load) -> list[Command]:
        slots = "50" if load == "nap" else "100"
        return [
            [
                *(script("taskiq"), "worker", "benchmarks.contenders.taskiq:broker"),
                *("--workers", "2", "--max-async-tasks", slots, "--log-level", "WARNING"),
            ]
        ]

    async def aenqueue(self, body: str, *args: Any) -> Any:
        return await BODIES[body].kiq(*args)

    async def aresult(self, handle: Any) -> Any:
        return (await handle.wait_result(check_interval=0.002, timeout=30)).return_value

    def close(self) -> None:
        self.loop.run_until_complete(broker.shutdown())


contender = Taskiq()

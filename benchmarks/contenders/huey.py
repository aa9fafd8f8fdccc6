"""Huey on Redis."""

from __future__ import annotations

import time
from typing import Any

from huey import RedisHuey
from huey.api import chord

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, redis_url, script

huey = RedisHuey("bench", url=redis_url())


@huey.task()
def noop() -> None:
    """Do nothing."""
    meter.bump()


@huey.task()
def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)
    meter.bump()


@huey.task()
def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@huey.task()
def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


@huey.task()
def join(results: Any) -> None:
    """Follow the children."""
    meter.stamp(0)


BODIES = {"noop": noop, "nap": nap, "stamp": stamp, "echo": echo}


class Huey(Contender):
    """A consumer with two processes."""

    title = "Huey"
    store = "Redis"
    settings = (
        "`huey_consumer -k process -w 2`, the naps in 2 consumers with `-k thread -w 50`; "
        "results are polled for each 2 ms."
    )

    def worker_commands(self, load: Load) -> list[Command]:
        base = [script("huey_consumer"), "benchmarks.contenders.huey.huey", "-q"]
        if load == "nap":
            return [[*base, "-k", "thread", "-w", "50"]] * 2
        return [[*base, "-k", "process", "-w", "2"]]

    def enqueue(self, body: str, *args: Any) -> Any:
        return BODIES[body](*args)

    def result(self, handle: Any) -> Any:
        return handle.get(blocking=True, timeout=30, backoff=1, max_delay=0.002)

    def fan_out(self, children: int) -> None:
        huey.enqueue(chord([noop.s() for _ in range(children)], join.s()))


contender = Huey()

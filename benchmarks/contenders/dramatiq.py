"""dramatiq on Redis."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq import group
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as LimitBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, redis_url, script

broker = RedisBroker(url=redis_url())
broker.add_middleware(Results(backend=RedisBackend(url=redis_url())))
broker.add_middleware(GroupCallbacks(LimitBackend(url=redis_url())))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Do nothing."""
    meter.bump()


@dramatiq.actor
def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)
    meter.bump()


@dramatiq.actor
def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@dramatiq.actor(store_results=True)
def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


@dramatiq.actor
def join() -> None:
    """Follow the children."""
    meter.stamp(0)


BODIES = {"noop": noop, "nap": nap, "stamp": stamp, "echo": echo}


class Dramatiq(Contender):
    """Two processes of threads."""

    title = "dramatiq"
    store = "Redis"
    settings = "`dramatiq -p 2 -t 8`, the naps with `-t 50`; its default middleware."

    def worker_commands(self, load: Load) -> list[Command]:
        threads = "50" if load == "nap" else "8"
        return [[script("dramatiq"), "benchmarks.contenders.dramatiq", "-p", "2", "-t", threads]]

    def enqueue(self, body: str, *args: Any) -> Any:
        return BODIES[body].send(*args)

    def result(self, handle: Any) -> Any:
        return handle.get_result(block=True, timeout=30_000)

    def fan_out(self, children: int) -> None:
        parts = group([noop.message() for _ in range(children)])
        parts.add_completion_callback(join.message())
        parts.run()


contender = Dramatiq()

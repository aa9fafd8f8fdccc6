"""Celery on Redis, with its default pool of processes."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery, chord

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, redis_url, script

app = Celery("bench", broker=redis_url(), backend=redis_url())
app.conf.update(
    task_default_queue="bench",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=32,
    worker_hijack_root_logger=False,
)


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing."""
    meter.bump()


@app.task
def child() -> None:
    """Do nothing, as a part of a chord, which needs its result."""
    meter.bump()


@app.task(ignore_result=True)
def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)
    meter.bump()


@app.task(ignore_result=True)
def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@app.task
def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


@app.task(ignore_result=True)
def join() -> None:
    """Follow the children."""
    meter.stamp(0)


BODIES = {"noop": noop, "nap": nap, "stamp": stamp, "echo": echo}


class CeleryPrefork(Contender):
    """One parent that feeds two children."""

    title = "Celery (prefork)"
    store = "Redis"
    settings = (
        "1 worker with `-c 2`, prefetch 64 in all, without gossip, mingle and heartbeat; results "
        "only where asked for; the naps in 2 workers with `-P threads -c 50`."
    )

    def worker_commands(self, load: Load) -> list[Command]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        base = [script("celery"), "-A", "benchmarks.contenders.celery:app", "worker", "-Q", "bench"]
        if load == "nap":
            return [
                [*base, *quiet, "-P", "threads", "-c", "50", "-n", f"nap{n}@bench"] for n in (1, 2)
            ]
        return [[*base, *quiet, *self.pool(), "-n", f"w{n}@bench"] for n in self.workers()]

    def pool(self) -> list[str]:
        """The options that name the pool."""
        return ["-c", "2"]

    def workers(self) -> range:
        """How many workers of it are two processes."""
        return range(1)

    def enqueue(self, body: str, *args: Any) -> Any:
        return BODIES[body].apply_async(args)

    def result(self, handle: Any) -> Any:
        return handle.get(timeout=30)

    def fan_out(self, children: int) -> None:
        chord([child.si() for _ in range(children)])(join.si())


contender = CeleryPrefork()

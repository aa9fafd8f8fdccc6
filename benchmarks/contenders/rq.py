"""RQ, whose default worker forks a process for each task."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, redis_url, script


def noop() -> None:
    """Do nothing."""
    meter.bump()


def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)
    meter.bump()


def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


def join() -> None:
    """Follow the children."""
    meter.stamp(0)


class RqForks(Contender):
    """The worker that survives its tasks."""

    title = "RQ (forks)"
    store = "Redis"
    settings = "2 × `rq worker`; the naps in `rq worker-pool -n 100`, one task a process."
    worker_class = "rq.worker.Worker"

    def prepare(self) -> None:
        self.queue = Queue("bench", connection=Redis.from_url(redis_url()))

    def worker_commands(self, load: Load) -> list[Command]:
        options = ["--url", redis_url(), "--worker-class", self.worker_class, "--quiet", "bench"]
        if load == "nap":
            return [[script("rq"), "worker-pool", "-n", "100", *options]]
        return [[script("rq"), "worker", *options]] * 2

    def enqueue(self, body: str, *args: Any) -> Any:
        return self.queue.enqueue(f"benchmarks.contenders.rq.{body}", *args)

    def bulk(self, body: str, count: int) -> None:
        name = f"benchmarks.contenders.rq.{body}"
        self.queue.enqueue_many([Queue.prepare_data(name) for _ in range(count)])

    def result(self, handle: Any) -> Any:
        return handle.latest_result(timeout=30).return_value

    def fan_out(self, children: int) -> None:
        name = "benchmarks.contenders.rq.noop"
        parts = self.queue.enqueue_many([Queue.prepare_data(name) for _ in range(children)])
        self.queue.enqueue("benchmarks.contenders.rq.join", depends_on=parts)


contender = RqForks()

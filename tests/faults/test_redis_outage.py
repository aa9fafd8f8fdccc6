"""Redis emptied, killed, or never there: bells are lost, tasks are not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import redis

from cq.definition.status import Status
from cq.models import Task
from cq.transport import dispatcher
from tests.conftest import Layers
from tests.sampleapp.tasks import doze, noop
from tests.services import Server
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]


def queued() -> int:
    return Task.objects.filter(status=Status.QUEUED).count()


def ended() -> int:
    return Task.objects.filter(status=Status.SUCCESS).count()


def test_queued_tasks_outlive_a_redis_that_is_emptied_and_killed(
    worker_process: WorkerFactory, wait_until: WaitUntil, own_redis: Server
) -> None:
    worker = worker_process("--no-scheduler", "-c", "4", cq={"POLL": 0.5})
    doze.delay_many([((0.04,), {})] * 300)
    wait_until(lambda: ended() >= 5)
    assert queued() >= 100
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    own_redis.kill()
    assert queued() >= 100
    during = [noop.delay() for _ in range(10)]
    wait_until(lambda: ended() >= 100, timeout=20)
    own_redis.resume()
    wait_until(lambda: ended() == 310, timeout=30)
    for task in during:
        task.refresh_from_db()
        assert (task.status, task.attempts) == (Status.SUCCESS, 1)
    assert worker.stop() == 0
    assert "ERROR cq." not in worker.output()


def test_without_redis_tasks_are_committed_and_found_by_polling(
    worker_process: WorkerFactory,
    use_layers: Layers,
    wait_until: WaitUntil,
    own_redis: Server,
) -> None:
    use_layers("redis")
    noop.delay()
    dispatcher.flush(2)
    own_redis.kill()
    worker = worker_process("--no-scheduler", cq={"POLL": 0.5})
    noop.delay()
    took = []
    for _ in range(50):
        began = time.perf_counter()
        noop.delay()
        took.append(time.perf_counter() - began)
    wait_until(lambda: ended() == 52, timeout=5)
    # A connection refused is not waited for: delay() only appends to an inbox.
    assert statistics.median(took) < 0.02
    own_redis.resume()
    wait_until(lambda: dispatcher.flush(0.2), timeout=10)
    noop.delay().wait(5)
    assert worker.stop() == 0
    assert "ERROR cq." not in worker.output()

"""
The measurements, each a function that returns the figures of one round.

Rates and latencies come from the rows' own timestamps, written by the database's clock.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from benchmarks import tasks
from cq.models import Task, Worker
from cq.testing import wait_for

MANAGE = str(Path(__file__).resolve().with_name("manage.py"))
Figures = dict[str, float]


@contextmanager
def workers(count: int, *options: str) -> Iterator[None]:
    """Run so many real worker processes while the block runs."""
    command = [sys.executable, MANAGE, "cq_runworker", "-v", "0", *options]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        _until(lambda: Worker.objects.filter(alive=True, beat__gt=0).count() >= count, 30)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=40)


def forget_everything() -> None:
    """Empty the tables, so that each round starts alike (and without statistics)."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE cq_task, cq_stream, cq_logline, cq_progress, cq_worker")


def throughput(task: str, count: int, processes: int = 2) -> Figures:
    """
    Enqueue first, then start the workers: tasks recorded as done per second.

    Counted from the moment the last worker has joined; its start is another figure.
    """
    forget_everything()
    function = getattr(tasks, task)
    calls = []
    for _ in range(count):
        before = time.perf_counter()
        function.delay()
        calls.append(time.perf_counter() - before)
    with workers(processes):
        _until(lambda: Task.objects.filter(status="S").count() == count, 120)
    return {
        "tasks/s": _rate(count),
        "delay() p50 ms": 1000 * statistics.median(calls),
        "delay() p99 ms": 1000 * statistics.quantiles(calls, n=100)[98],
    }


def waits(count: int, seconds: float, slots: int) -> Figures:
    """I/O-bound tasks on one process: the share of the ideal rate."""
    forget_everything()
    tasks.nap.delay_many([((seconds,), {})] * count)
    with workers(1, "-c", str(slots)):
        _until(lambda: Task.objects.filter(status="S").count() == count, 120)
    done = _span(count)
    return {"tasks/s": count / done, "% of ideal": 100 * count / done / (slots / seconds)}


def latency(rounds: int) -> Figures:
    """One task at a time on an idle worker: from the row's insert to its start, and back."""
    forget_everything()
    starts, trips = [], []
    with workers(1):
        wait_for(tasks.noop.delay())
        for _ in range(rounds):
            before = time.perf_counter()
            task = tasks.noop.delay()
            task.wait(10)
            trips.append(1000 * (time.perf_counter() - before))
            starts.append(1000 * (task.started - task.submitted).total_seconds())
    return {
        "start p50 ms": statistics.median(starts),
        "start p99 ms": statistics.quantiles(starts, n=100)[98],
        "round trip p50 ms": statistics.median(trips),
        "round trip p99 ms": statistics.quantiles(trips, n=100)[98],
    }


def fan_out(children: int) -> Figures:
    """One parent and its children: from the parent's insert to its end."""
    forget_everything()
    with workers(2):
        wait_for(tasks.noop.delay())
        task = wait_for(tasks.fan_out.delay(children), timeout=60)
    return {"seconds": (task.finished - task.submitted).total_seconds()}


def bulk(count: int) -> Figures:
    """delay_many(): rows per second."""
    forget_everything()
    before = time.perf_counter()
    for _ in range(count // 1000):
        tasks.noop.delay_many([((), {})] * 1000)
    return {"tasks/s": count / (time.perf_counter() - before)}


def _rate(count: int) -> float:
    _span(count)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) / EXTRACT(EPOCH FROM max(finished) - min(started))::float "
            "FROM cq_task WHERE started >= (SELECT max(started) FROM cq_worker)"
        )
        return float(cursor.fetchone()[0])


def _span(count: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXTRACT(EPOCH FROM max(finished) - min(started)), count(*) "
            "FROM cq_task WHERE status = 'S'"
        )
        seconds, found = cursor.fetchone()
    if found != count:
        raise RuntimeError(f"{found} of {count} tasks are done. All were expected; see the rows.")
    return float(seconds)


def _until(condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not done within {seconds} s: {Task.objects.count()} rows.")
        time.sleep(0.1)  # noqa: TID251 - a benchmark looks now and then, from outside

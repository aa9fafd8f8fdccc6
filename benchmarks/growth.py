"""
Growth: how cq's throughput, claims and memory change with what piles up around it.

Workloads of cq alone, which look into it for the time of one claim: against the queued rows,
the finished rows, the worker processes, the children of one parent, and those who watch.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.utils import timezone

from benchmarks import meter, tasks
from benchmarks.contender import module
from benchmarks.figures import NANO, Figures, percentiles, rate
from benchmarks.processes import wait_until, working
from benchmarks.workloads import BULK, CUT_SECONDS, START_SECONDS, Probe, fan_out
from cq.definition.outcome import Succeeded
from cq.models import Worker, workers
from cq.models.sessions import own_sessions
from cq.models.transitions import Want
from cq.web.tokens import watch_token
from cq.workflow.claim import claim
from cq.workflow.completion import Completion, complete
from tests.crowd import Crowd
from tests.service_guard import free_port

HISTORY_TASKS = 5_000
WORKERS_TASKS = 20_000
WATCHED_CHILDREN = 5_000
CLAIMS = 20
HERE = "127.0.0.1"
CLAIMED = 100
BATCHED = 10_000


def backlog(probe: Probe, size: int) -> Figures:
    """So many rows wait: the time of a claim of 100, the rate, and the workers' memory."""
    return {**_claims(size), **_rate(probe, size - _claimed(size))}


def history(probe: Probe, size: int) -> Figures:
    """So many rows are finished, and 5,000 wait."""
    # The copies wait; to be history they must have ended, as a worker would have ended them.
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE cq_task SET status = 'S', started = submitted, finished = submitted, "
            "attempts = 1, result = 'null', result_expiry = %s",
            [timezone.now() + timedelta(days=7)],
        )
    for _ in range(HISTORY_TASKS // BULK):
        tasks.noop.delay_many([((), {})] * BULK)
    # The copies have waited a moment ago: their entries in the claim's index go with a vacuum,
    # as those of real histories have long gone.
    probe.analyze()
    found = _claims(HISTORY_TASKS)
    return {**found, **_rate(probe, HISTORY_TASKS - _claimed(HISTORY_TASKS))}


def transaction(probe: Probe, size: int) -> Figures:
    """So many tasks are worked off while somebody's transaction that has written stays open."""
    for _ in range(0, size, BULK):
        tasks.noop.delay_many([((), {})] * min(BULK, size))
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            # What a write does: the dead versions of all rows stay as long as this number is
            # in use, also in the indexes.
            cursor.execute("SELECT pg_current_xact_id()::text")
        found = _rate(probe, size)
        tasks.noop.delay_many([((), {})] * BULK)
        found |= _claims(BULK)
        other.rollback()
    return found


def processes(probe: Probe, size: int) -> Figures:
    """So many worker processes work off 20,000 tasks."""
    for _ in range(WORKERS_TASKS // BULK):
        tasks.noop.delay_many([((), {})] * BULK)
    return _rate(probe, WORKERS_TASKS, size)


def children(probe: Probe, size: int) -> Figures:
    """So many children of one parent, and what follows the last."""
    found = fan_out(probe, size)
    return {**found, "ms a child": 1000 * found["seconds"] / size}


def watchers(probe: Probe, size: int) -> Figures:
    """So many pages watch one tree of 5,000 children over real sockets."""
    row = tasks.fan_out.using(submit=False).delay(WATCHED_CHILDREN)
    pages = [(str(row.id), watch_token(row, ("progress", "tree", "log")))] * size
    with ExitStack() as stack:
        running = stack.enter_context(probe.working())
        tasks.noop.delay()
        if not wait_until(probe.done(1), within=START_SECONDS, workers=running):
            raise TimeoutError(f"No task was done within {START_SECONDS:g} s.")
        crowd = stack.enter_context(closing(Crowd(_web(stack, probe), pages))) if size else None
        before = time.monotonic_ns()
        row.submit()
        if not wait_until(probe.stamped(), within=120, workers=running):
            raise TimeoutError("The watched tree did not end within 120 s.")
        seconds = (meter.stamps(probe.folder)[0][1] - before) / NANO
        report = crowd.report() if crowd else None
    told = {"ends seen": float(report.ends), "frames": float(report.frames)} if report else {}
    return {"tasks/s": WATCHED_CHILDREN / seconds, **told}


def batches(probe: Probe, size: int) -> Figures:
    """Claims and completions of so many tasks at once, by one thread: what each task costs."""
    count = max(BATCHED // size, 5) * size
    for first in range(0, count, BULK):
        tasks.noop.delay_many([((), {})] * min(BULK, count - first))
    probe.analyze()
    with ThreadPoolExecutor(1, initializer=own_sessions) as thread:
        return thread.submit(_in_batches, count, size).result()


def _in_batches(count: int, size: int) -> Figures:
    worker: Any = Worker(names=[tasks.noop.name], hostname="benchmarks", state="drain")
    workers.enlist(worker)
    spent = {"claim": [0.0, 0.0], "completion": [0.0, 0.0]}
    done = 0
    try:
        while done < count:
            with _spending(spent["claim"]):
                found = claim(worker.id, [Want((tasks.noop.name,), size)], None)
            with _spending(spent["completion"]):
                complete([Completion(claimed=row, outcome=Succeeded(result=None)) for row in found])
            done += len(found)
    finally:
        connections.close_all()
    return {
        f"{what} µs a task{of}": 1e6 * seconds / done
        for what, both in spent.items()
        for of, seconds in zip(("", ", of it Python"), both, strict=True)
    }


@contextmanager
def _spending(spent: list[float]) -> Iterator[None]:
    wall, own = time.perf_counter(), time.thread_time()
    yield
    spent[0] += time.perf_counter() - wall
    spent[1] += time.thread_time() - own


def _web(stack: ExitStack, probe: Probe) -> str:
    """Start the web process and return its address."""
    port = free_port()
    command = module("daphne", "-b", HERE, "-p", str(port), "benchmarks.sockets:application")
    web = stack.enter_context(working([command], probe.folder, log="web.log"))

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex((HERE, port)) == 0

    if not wait_until(listens, within=START_SECONDS, workers=web):
        raise TimeoutError(f"The web process did not listen within {START_SECONDS:g} s.")
    return f"http://{HERE}:{port}"


def _claimed(waiting: int) -> int:
    """How many rows the timed claims take, at most half of them."""
    return CLAIMED * min(CLAIMS, waiting // (2 * CLAIMED))


def _claims(waiting: int) -> Figures:
    worker: Any = Worker(names=[tasks.noop.name], hostname="benchmarks", state="drain")
    workers.enlist(worker)
    times = []
    for _ in range(_claimed(waiting) // CLAIMED):
        before = time.perf_counter()
        found = claim(worker.id, [Want((tasks.noop.name,), CLAIMED)], None)
        times.append(1000 * (time.perf_counter() - before))
        if len(found) != CLAIMED:
            raise RuntimeError(f"A claim of {CLAIMED} found {len(found)} of {waiting} rows.")
    return percentiles(times, "claim of 100")


def _rate(probe: Probe, waiting: int, count: int = 2) -> Figures:
    probe.analyze()
    command = probe.contender.worker_commands("noop")[0]
    begin = time.monotonic_ns()
    with working([command] * count, probe.folder) as running:
        begun = lambda: meter.counted(probe.folder) > 0  # noqa: E731
        if not wait_until(begun, within=2 * START_SECONDS, workers=running):
            raise TimeoutError(f"No task was done within {2 * START_SECONDS:g} s.")
        wait_until(probe.done(waiting), within=CUT_SECONDS, workers=running)
        found = meter.runs(probe.folder)
        return {
            "tasks/s": rate(found),
            "first task s": (min(run.first for run in found) - begin) / NANO,
            "MiB": running.memory(),
        }


WORKLOADS = {
    "grow-backlog": backlog,
    "grow-history": history,
    "grow-transaction": transaction,
    "grow-batches": batches,
    "grow-processes": processes,
    "grow-children": children,
    "grow-watchers": watchers,
}

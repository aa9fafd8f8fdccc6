"""
The workloads: the same work for every contender, each a function that gives one round's figures.

They run in the contender's own environment and see it through its protocol alone. What is done
is counted by the bodies themselves (benchmarks.meter). Standard library only.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import meter
from benchmarks.contender import Contender, NotOffered, loop_of, poll
from benchmarks.figures import NANO, Figures, percentiles, rate
from benchmarks.processes import Workers, wait_until, working

START_SECONDS = 30.0
CUT_SECONDS = 15.0
PAUSE_SECONDS = 0.02
NAP_SECONDS = 0.05
SLOTS = 100
BULK = 1000


class Probe:
    """One contender, and the folder in which its bodies count."""

    def __init__(self, contender: Contender, folder: Path, analyze: Callable[[], None]) -> None:
        self.contender = contender
        self.folder = folder
        self.analyze = analyze

    def working(self, load: str = "noop") -> contextlib.AbstractContextManager[Workers]:
        """Run the contender's workers while the block runs."""
        return working(self.contender.worker_commands(load), self.folder)  # type: ignore[arg-type]

    def done(self, count: int) -> Callable[[], bool]:
        """Whether so many tasks are done."""
        return lambda: meter.counted(self.folder) >= count

    def stamped(self, count: int = 1) -> Callable[[], bool]:
        """Whether so many stamps are kept."""
        return lambda: len(meter.stamps(self.folder)) >= count


def throughput(probe: Probe, size: int, kind: str = "") -> Figures:
    """Enqueue no-ops, then start the workers: tasks per second, cut off after 15 s."""
    body = f"noop_{kind}" if kind else "noop"
    calls = [_timed(lambda: probe.contender.enqueue(body)) for _ in range(size)]
    return {**_worked_off(probe, size), "enqueue/s": 1000 * size / sum(calls)}


def _worked_off(probe: Probe, size: int) -> Figures:
    probe.analyze()
    with probe.working() as workers:
        begun = lambda: meter.counted(probe.folder) > 0  # noqa: E731
        if not wait_until(begun, within=START_SECONDS, workers=workers):
            raise TimeoutError(f"No task was done within {START_SECONDS:g} s.")
        wait_until(probe.done(size), within=CUT_SECONDS, workers=workers)
        memory = workers.memory()
        found = meter.runs(probe.folder)
        return {"tasks/s": rate(found), **probe.contender.recorded(), "after MiB": memory}


def fresh(probe: Probe, size: int) -> Figures:
    """Throughput on a table that was just filled and has no statistics."""
    probe.contender.bulk("noop", size)
    probe.analyze = lambda: None
    found = _worked_off(probe, size)
    return {"tasks/s": found["tasks/s"]}


def enqueueing(probe: Probe, size: int) -> Figures:
    """The calls of a producer while no worker runs: single, in a coroutine, many at once."""
    contender = probe.contender
    singles = [_timed(lambda: contender.enqueue("noop")) for _ in range(size)]
    figures = {
        "sync/s": 1000 * size / sum(singles),
        **percentiles(singles, "sync call"),
    }
    with contextlib.suppress(NotOffered):

        async def in_turn() -> list[float]:
            times = []
            for _ in range(size):
                before = time.perf_counter()
                await contender.aenqueue("noop")
                times.append(1000 * (time.perf_counter() - before))
            return times

        figures["async/s"] = 1000 * size / sum(loop_of(contender).run_until_complete(in_turn()))
    with contextlib.suppress(NotOffered):
        portions = max(1, size * 10 // BULK)
        took = sum(_timed(lambda: contender.bulk("noop", BULK)) for _ in range(portions))
        figures["bulk/s"] = 1000 * portions * BULK / took
    return figures


def waits(probe: Probe, size: int) -> Figures:
    """Naps of 50 ms, 100 at once over two processes: how much of the ideal rate is left."""
    for _ in range(size):
        probe.contender.enqueue("nap")
    probe.analyze()
    with probe.working("nap") as workers:
        begun = lambda: meter.counted(probe.folder) > 0  # noqa: E731
        if not wait_until(begun, within=START_SECONDS, workers=workers):
            raise TimeoutError(f"No task was done within {START_SECONDS:g} s.")
        wait_until(probe.done(size), within=CUT_SECONDS, workers=workers)
        found = rate(meter.runs(probe.folder), lead=int(NAP_SECONDS * NANO))
    return {"tasks/s": found, "% of ideal": 100 * found * NAP_SECONDS / SLOTS}


def latency(probe: Probe, size: int) -> Figures:
    """Start-up, memory when idle, then one task each 20 ms: from the call to its beginning."""
    contender = probe.contender
    contender.enqueue("stamp", time.monotonic_ns())
    with probe.working() as workers:
        if not wait_until(probe.stamped(), within=START_SECONDS, workers=workers):
            raise TimeoutError(f"No task began within {START_SECONDS:g} s.")
        started = (meter.stamps(probe.folder)[0][1] - workers.born) / NANO
        time.sleep(1.0)
        idle = workers.memory()
        calls = []
        for _ in range(size):
            time.sleep(PAUSE_SECONDS)
            calls.append(_timed(lambda: contender.enqueue("stamp", time.monotonic_ns())))
        wait_until(probe.stamped(size + 1), within=CUT_SECONDS, workers=workers)
    kept = meter.stamps(probe.folder)[1:]
    return {
        **percentiles([1000 * (began - sent) / NANO for sent, began in kept], "start"),
        "call p50 ms": statistics.median(calls),
        "start-up s": started,
        "idle MiB": idle,
        "missing": size - len(kept),
    }


def round_trips(probe: Probe, size: int) -> Figures:
    """Enqueue a task and wait for its result, one after the other."""
    contender = probe.contender
    with probe.working():
        contender.result(contender.enqueue("echo", 0))
        times = []
        for number in range(size):
            answers = []
            times.append(
                _timed(lambda: answers.append(contender.result(contender.enqueue("echo", number))))  # noqa: B023
            )
            if answers != [number]:
                raise RuntimeError(f"The result of echo({number}) came back as {answers!r}.")
    return percentiles(times, "round trip")


def fan_out(probe: Probe, size: int) -> Figures:
    """One parent's no-op children and what follows the last of them."""
    with probe.working() as workers:
        probe.contender.enqueue("noop")
        if not wait_until(probe.done(1), within=START_SECONDS, workers=workers):
            raise TimeoutError(f"No task was done within {START_SECONDS:g} s.")
        time.sleep(0.5)
        before = time.monotonic_ns()
        probe.contender.fan_out(size)
        if not wait_until(probe.stamped(), within=60, workers=workers):
            done = meter.counted(probe.folder) - 1
            raise TimeoutError(f"The join did not come within 60 s; {done} of {size} are done.")
        ended = meter.stamps(probe.folder)[0][1]
    if meter.counted(probe.folder) - 1 != size:
        raise RuntimeError(f"{meter.counted(probe.folder) - 1} children ran, of {size}.")
    return {"seconds": (ended - before) / NANO}


def backlog(probe: Probe, size: int) -> Figures:
    """The same throughput and call, with so many rows waiting in the table."""
    probe.analyze()
    calls = [_timed(lambda: probe.contender.enqueue("noop")) for _ in range(100)]
    with probe.working() as workers:
        poll(lambda: meter.counted(probe.folder), within=2 * START_SECONDS)
        wait_until(probe.done(size), within=CUT_SECONDS / 2, workers=workers)
        return {
            "tasks/s": rate(meter.runs(probe.folder)),
            "call p50 ms": statistics.median(calls),
            "with rows MiB": workers.memory(),
        }


def _timed(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - before)


WORKLOADS: dict[str, Callable[..., Figures]] = {
    "throughput": throughput,
    "fresh": fresh,
    "enqueue": enqueueing,
    "waits": waits,
    "latency": latency,
    "result": round_trips,
    "fan-out": fan_out,
    "backlog": backlog,
}

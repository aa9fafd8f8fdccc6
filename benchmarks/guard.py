"""
The guard: cq alone in under three minutes, and the ratios that must not fall.

A machine that is slow today slows the bare servers too, so a regression is seen as a smaller
share of what they did in the same run, and never as an absolute time. The targets are those of
an idle machine and only shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.campaign import Cell, Report
from benchmarks.figures import share_of_limit
from benchmarks.tables import number

ROUNDS = 3

CELLS = (
    Cell("throughput", 20_000, rounds=1),
    Cell("throughput", 2_000, "sync", rounds=1),
    Cell("throughput", 2_000, "atomic", rounds=1),
    Cell("waits", 2_000, least=100, rounds=1),
    Cell("enqueue", 1_000),
    Cell("latency", 100),
    Cell("result", 200),
    Cell("fan-out", 1_000),
)
SHOWN = {
    "throughput": ("tasks/s", "saved/s", "after MiB"),
    "waits": ("tasks/s", "% of ideal"),
    "enqueue": ("sync/s", "sync call p50 ms", "sync call p99 ms", "async/s", "bulk/s"),
    "latency": ("start p50 ms", "start p99 ms", "start-up s", "idle MiB"),
    "result": ("round trip p50 ms", "round trip p99 ms"),
    "fan-out": ("seconds",),
}
TARGETS = {
    ("throughput 20000", "tasks/s"): ">= 8,000",
    ("waits 2000", "% of ideal"): ">= 99",
    ("enqueue 1000", "sync call p50 ms"): "<= 0.6",
    ("latency 100", "start p50 ms"): "<= 3",
    ("result 200", "round trip p50 ms"): "<= 5",
    ("fan-out 1000", "seconds"): "<= 0.6",
}


@dataclass(frozen=True, slots=True)
class Floor:
    """The least share of a limit that a figure may be: below what a loaded machine showed."""

    cell: str
    figure: str
    limit: str
    least: float


FLOORS = (
    Floor("throughput 20000", "tasks/s", "PostgreSQL claim and end", 0.10),
    Floor("throughput sync 2000", "tasks/s", "PostgreSQL claim and end", 0.007),
    Floor("enqueue 1000", "sync/s", "PostgreSQL commit", 0.15),
    Floor("enqueue 1000", "bulk/s", "PostgreSQL bulk", 0.03),
    Floor("latency 100", "start p50 ms", "PostgreSQL commit", 0.05),
    Floor("result 200", "round trip p50 ms", "PostgreSQL commit", 0.02),
)


def shortfalls(report: Report, floors: tuple[Floor, ...] = FLOORS) -> list[str]:
    """What fell below its floor, or was not measured, one sentence each."""
    found = []
    for floor in floors:
        value = report.found.get(floor.cell, {}).get("cq", {}).get(floor.figure, 0.0)
        share = share_of_limit(value, report.limits.get(floor.limit, 0.0), floor.figure)
        if share is None:
            found.append(f"{floor.cell}, {floor.figure} was not measured. See the lines above.")
        elif share < floor.least:
            found.append(
                f"{floor.cell}, {floor.figure} is {number(value)}: {share:.3f} of "
                f"{floor.limit!r}, and at least {floor.least:.3f} was expected. Repeat the run "
                "on an idle machine; if it stays, look for the commit with git bisect."
            )
    return found


def show(report: Report) -> None:
    """Print the limits, then cq's figures with their targets and their share of a limit."""
    for name, value in report.limits.items():
        print(f"{name:48} {number(value):>12} /s")
    print(f"\n{'workload':24} {'figure':22} {'value':>10}  {'target':10} of the limit (floor)")
    floors = {(floor.cell, floor.figure): floor for floor in FLOORS}
    for cell, by_name in report.found.items():
        for figure in SHOWN[cell.split(" ")[0]]:
            measured = by_name.get("cq", {}).get(figure)
            floor = floors.get((cell, figure))
            share = ""
            if floor is not None and measured is not None:
                part = share_of_limit(measured, report.limits[floor.limit], figure)
                share = f"{part or 0.0:.3f} ({floor.least:.3f}) of {floor.limit}"
            target = TARGETS.get((cell, figure), "")
            print(f"{cell:24} {figure:22} {number(measured):>10}  {target:10} {share}")

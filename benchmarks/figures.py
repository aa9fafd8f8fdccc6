"""
The arithmetic: from counted runs and times to rates, percentiles, medians and ratios.

Nothing here measures; `tests/unit/benchmarks` holds it against known numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.meter import Run

Figures = dict[str, float]
"""What one round of one workload found, by the name of the figure (with its unit)."""

NANO = 1_000_000_000
MOST_PROCESSES = 8
"""More than this were forked for single tasks, or are a pool whose start is the work."""


def rate(found: Sequence[Run], lead: int = 0) -> float:
    """
    Tasks per second, from when the last of the worker processes was at work.

    Processes need different times to start, and a rate is about all. Where most of the work
    was over by then, or where each task had a process of its own, the whole span counts.
    `lead` is how long a task takes by its nature, in nanoseconds: the first are done so much
    later than they began.
    """
    if not found:
        return 0.0
    last = max(run.last for run in found)
    total = sum(run.count for run in found)
    begin, before = min(run.first for run in found), 0 if lead else 1
    if 2 <= len(found) <= MOST_PROCESSES:
        joined = max(run.first for run in found)
        early = sum(run.done_by(joined) for run in found)
        if early < total / 2:
            begin, before = joined, early
    span = last - begin + lead
    return (total - before) * NANO / span if span > 0 else 0.0


def percentiles(milliseconds: Iterable[float], name: str) -> Figures:
    """The p50, p95 and p99 of some times, each as `<name> p50 ms`."""
    ordered = sorted(milliseconds)
    if len(ordered) < 2:
        return {f"{name} p{part} ms": value for value in ordered for part in (50, 95, 99)}
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    return {f"{name} p{part} ms": cuts[part - 1] for part in (50, 95, 99)}


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """The median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for found in rounds for name in found)
    return {
        name: statistics.median(found[name] for found in rounds if name in found) for name in names
    }


def spread(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """How far the rounds lie apart: (highest - lowest) / median of a figure."""
    values = [found[name] for found in rounds if name in found]
    middle = statistics.median(values) if values else 0.0
    return (max(values) - min(values)) / middle if middle else 0.0


def is_better_low(figure: str) -> bool:
    """Whether less of it is better: times and memory, not rates and shares."""
    return not figure.endswith(("/s", "% of ideal"))


def best(found: Mapping[str, float], figure: str) -> str | None:
    """Who has the best value of a figure, among those that have one above zero."""
    values = {name: value for name, value in found.items() if value > 0}
    if not values:
        return None
    choose = min if is_better_low(figure) else max
    return choose(values, key=values.__getitem__)


def advantage(ours: float, theirs: float, figure: str) -> float | None:
    """How many times better ours is: 2.0 is twice the rate, or half the time."""
    if ours <= 0 or theirs <= 0:
        return None
    return theirs / ours if is_better_low(figure) else ours / theirs


def share_of_limit(value: float, limit: float, figure: str) -> float | None:
    """
    A figure as a share of a measured rate.

    A time counts as the rate of doing it again and again: 0.5 ms are 2,000 a second.
    """
    if value <= 0 or limit <= 0 or figure.endswith("% of ideal"):
        return None
    if figure.endswith(" ms"):
        return 1000 / value / limit
    return value / limit

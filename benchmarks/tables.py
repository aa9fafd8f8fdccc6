"""
The tables of docs/performance.md, in Markdown, made from a Report.

One row a contender, durable ones first; the best value of a column is bold and what a contender
does not offer is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.campaign import Report

DASH = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of one cell of the plan."""

    heading: str
    cell: str
    figure: str
    limit: str | None = None
    """The measured limit that it is compared with."""


SYNC = "throughput sync 5000"
COMMON = (
    Column("no-ops /s", "throughput 20000", "tasks/s", "PostgreSQL claim and end"),
    Column("sync no-ops /s", SYNC, "tasks/s"),
    Column("naps, % of ideal", "waits 5000", "% of ideal"),
    Column("enqueue sync /s", "enqueue 2000", "sync/s", "PostgreSQL commit"),
    Column("async /s", "enqueue 2000", "async/s", "PostgreSQL commit"),
    Column("bulk /s", "enqueue 2000", "bulk/s", "PostgreSQL bulk"),
)
DELAYS = (
    Column("start p50", "latency 300", "start p50 ms", "PostgreSQL commit"),
    Column("p95", "latency 300", "start p95 ms"),
    Column("p99", "latency 300", "start p99 ms"),
    Column("call p50", "latency 300", "call p50 ms", "PostgreSQL commit"),
    Column("result p50", "result 200", "round trip p50 ms", "PostgreSQL commit"),
    Column("p95", "result 200", "round trip p95 ms"),
    Column("p99", "result 200", "round trip p99 ms"),
)
REST = (
    Column("1,000 children, s", "fan-out 1000", "seconds"),
    Column("10,000 children, s", "fan-out 10000", "seconds"),
    Column("start-up, s", "latency 300", "start-up s"),
    Column("idle, MiB", "latency 300", "idle MiB"),
    Column("after load, MiB", "throughput 20000", "after MiB"),
)
DURABLE = (
    Column("no-ops /s, 20,000 waiting", "throughput 20000", "tasks/s"),
    Column("the same without statistics", "fresh 20000", "tasks/s"),
    Column("1,000,000 waiting", "backlog 1000000", "tasks/s"),
    Column("enqueue p50 then, ms", "backlog 1000000", "call p50 ms"),
    Column("memory then, MiB", "backlog 1000000", "with rows MiB"),
)


def number(value: float | None) -> str:
    """Three digits that count: 33,526 and 1.44 and 0.087."""
    if value is None:
        return DASH
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def values(report: Report, column: Column) -> dict[str, float]:
    """The values of a column, by contender."""
    found = report.found.get(column.cell, {})
    taken = {name: own[column.figure] for name, own in found.items() if column.figure in own}
    if column.cell == SYNC:
        # Those that only know synchronous bodies ran them in the common workload.
        for name, own in report.found.get(COMMON[0].cell, {}).items():
            if report.about.get(name, {}).get("kinds") == "sync":
                taken[name] = own[column.figure]
    return taken


def ordered(report: Report) -> list[str]:
    """cq, then the durable peers, then the others, each by name."""
    return sorted(
        report.about,
        key=lambda name: (name != "cq", report.about[name]["store"] != "PostgreSQL", name),
    )


def comparison(report: Report, columns: Sequence[Column]) -> str:
    """A row for each contender."""
    taken = [values(report, column) for column in columns]
    best = [
        figures.best(found, column.figure) for found, column in zip(taken, columns, strict=True)
    ]
    rows = []
    for name in ordered(report):
        cells = [
            f"**{number(found[name])}**" if first == name else number(found.get(name))
            for found, first in zip(taken, best, strict=True)
        ]
        if set(cells) != {DASH}:
            about = report.about[name]
            rows.append([about["title"], about["store"], *cells])
    return table(["", "store", *[column.heading for column in columns]], rows)


def durable(report: Report) -> str:
    """The rows of those that keep tasks in PostgreSQL."""
    kept = {name: told for name, told in report.about.items() if told["store"] == "PostgreSQL"}
    found = {
        cell: {name: own for name, own in by_name.items() if name in kept}
        for cell, by_name in report.found.items()
    }
    return comparison(Report(about=kept, found=found), DURABLE)


def ratios(report: Report) -> str:
    """How many times better cq is than the best durable peer, the best peer, and the limit."""
    rows = []
    for column in (*COMMON, *DELAYS, *REST[:4]):
        found = values(report, column)
        ours = found.pop("cq", None)
        if ours is None:
            continue
        kept = {
            name: value
            for name, value in found.items()
            if report.about.get(name, {}).get("store") == "PostgreSQL"
        }
        shown = f"{column.cell}: {column.figure}"
        sides = [_against(report, ours, side, column.figure) for side in (kept, found)]
        rows.append([shown, number(ours), *sides, _of_limit(report, ours, column)])
    headings = ["", "cq", "to the best durable peer", "to the best peer", "of the limit"]
    return table(headings, rows)


def _against(report: Report, ours: float, found: Mapping[str, float], figure: str) -> str:
    name = figures.best(found, figure)
    if name is None:
        return DASH
    times = figures.advantage(ours, found[name], figure)
    return f"{number(times)}× ({report.about[name]['title']})"


def _of_limit(report: Report, ours: float, column: Column) -> str:
    limit = report.limits.get(column.limit or "")
    share = figures.share_of_limit(ours, limit or 0.0, column.figure)
    return DASH if share is None else f"{100 * share:.0f} % ({column.limit})"


def limits(report: Report, meanings: Mapping[str, str]) -> str:
    """The bare servers."""
    rows = [
        [f"{name}: {meaning}", number(report.limits.get(name))]
        for name, meaning in meanings.items()
    ]
    return table(["what", "per second"], rows)


def kinds(report: Report) -> str:
    """cq's kinds of no-op: counted by the bodies, and from the rows."""
    rows = []
    for kind, cell in (
        ("async", "throughput 20000"),
        ("sync, no transaction", SYNC),
        ("sync, atomic", "throughput atomic 5000"),
    ):
        own = report.found.get(cell, {}).get("cq", {})
        rows.append([kind, number(own.get("tasks/s")), number(own.get("saved/s"))])
    return table(["no-op", "bodies /s", "rows recorded as done /s"], rows)


def settings(report: Report) -> str:
    """What was set for each contender."""
    rows = [
        [about["title"], about["version"], about["settings"]]
        for about in (report.about[name] for name in ordered(report))
    ]
    lines = [["contender", "version", "settings"], ["---"] * 3, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def growth(report: Report, workload: str, first: str) -> str:
    """One row for each size of a growing workload of cq."""
    sizes = {
        int(cell.rpartition(" ")[2]): own["cq"]
        for cell, own in report.found.items()
        if cell.rpartition(" ")[0] == workload and "cq" in own
    }
    headings = list(dict.fromkeys(name for own in sizes.values() for name in own))
    rows = [
        [f"{size:,}", *[number(own.get(name)) for name in headings]]
        for size, own in sorted(sizes.items())
    ]
    return table([first, *headings], rows)

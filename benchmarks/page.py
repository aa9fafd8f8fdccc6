"""
docs/performance.md: the parts between its markers, and its plots, made from a Report.

The prose around the markers is written by people; a marker that is not there is a KeyError,
since a table nobody sees would be measured for nothing.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from benchmarks import limits, plots, tables
from benchmarks.campaign import Report
from benchmarks.environments import ROOT
from benchmarks.figures import is_better_low

PAGE = ROOT / "docs" / "performance.md"
IMAGES = "images"
PLOTTED = {
    "performance-noops": ("No-ops per second, 2 worker processes", tables.COMMON[0]),
    "performance-start": ("From call to start, ms (p50): less is better", tables.DELAYS[0]),
    "performance-result": ("From call to result, ms (p50): less is better", tables.DELAYS[4]),
    "performance-children": ("1,000 children and what follows, s: less is better", tables.REST[0]),
}
GROWING = {
    "grow-backlog": ("rows waiting", "tasks/s", "Tasks per second against rows waiting"),
    "grow-history": ("rows finished", "tasks/s", "Tasks per second against finished rows"),
    "grow-transaction": (
        "tasks ended meanwhile",
        "claim of 100 p50 ms",
        "Milliseconds a claim beside an open transaction that has written",
    ),
    "grow-batches": (
        "tasks at once",
        "claim µs a task",
        "Microseconds of claims and completions by their size",
    ),
    "grow-processes": ("worker processes", "tasks/s", "Tasks per second against processes"),
    "grow-children": ("children", "ms a child", "Milliseconds a child against children"),
    "grow-watchers": ("watching pages", "tasks/s", "Tasks per second of a watched tree"),
}


def replaced(text: str, name: str, body: str) -> str:
    """The page with what is between the markers of a name replaced."""
    pattern = re.compile(rf"(<!-- {name}: .*?-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise KeyError(
            f"The page has no part {name!r}. Put '<!-- {name}: made by … -->' and "
            f"'<!-- /{name} -->' where it belongs."
        )
    return pattern.sub(lambda found: f"{found[1]}\n{body}\n\n{found[2]}", text)


def write_peers(report: Report, page: Path = PAGE) -> None:
    """Write the comparison, and its plots beside the page."""
    images = _bars(report, page.parent / IMAGES)
    named = "" if report.facts.get("scale") == "1" else " Workloads bear their names at scale 1."
    parts = [
        _facts(report) + named,
        "### In one look\n\n" + tables.ratios(report),
        "\n\n".join(images),
        "### Throughput and enqueueing\n\n" + tables.comparison(report, tables.COMMON),
        "### Delays, in milliseconds\n\n" + tables.comparison(report, tables.DELAYS),
        "### Fan-out, start-up and memory\n\n" + tables.comparison(report, tables.REST),
        "### A million rows waiting\n\n" + tables.durable(report),
        "### cq by kind of task\n\n" + tables.kinds(report),
        "### The bare servers\n\n" + tables.limits(report, limits.FIGURES),
        "### Settings\n\n" + tables.settings(report),
    ]
    if report.problems:
        lines = "\n".join(f"- {problem}" for problem in report.problems)
        parts.append("### What did not run\n\n" + lines)
    page.write_text(replaced(page.read_text(), "peers", "\n\n".join(parts)))


def write_growth(report: Report, page: Path = PAGE) -> None:
    """Write the growth of cq alone, and its plots."""
    parts = [_facts(report)]
    for workload, (first, figure, title) in GROWING.items():
        points = [
            (float(cell.rpartition(" ")[2]), own["cq"][figure])
            for cell, own in report.found.items()
            if cell.rpartition(" ")[0] == workload and figure in own.get("cq", {})
        ]
        if not points:
            continue
        name = f"performance-{workload}.svg"
        _write(page.parent / IMAGES / name, plots.line(title, points, first))
        parts.append(f"### {title}\n\n{tables.growth(report, workload, first)}")
        parts.append(f"![{title}]({IMAGES}/{name})")
    page.write_text(replaced(page.read_text(), "growth", "\n\n".join(parts)))


def _facts(report: Report) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    apart = [value for by_name in report.spreads.values() for value in by_name.values()]
    middle = f" Rounds lay {100 * statistics.median(apart):.0f} % apart (median)." if apart else ""
    return f"Measured on: {facts}.{middle}"


def _bars(report: Report, folder: Path) -> list[str]:
    links = []
    for name, (title, column) in PLOTTED.items():
        found = tables.values(report, column)
        if not found:
            continue
        order = sorted(found, key=found.__getitem__, reverse=not is_better_low(column.figure))
        titles = {key: report.about[key]["title"] for key in order}
        classes = {titles[key]: _class(report, key) for key in order}
        drawn = plots.bars(title, {titles[key]: found[key] for key in order}, classes)
        _write(folder / f"{name}.svg", drawn)
        links.append(f"![{title}]({IMAGES}/{name}.svg)")
    return links


def _class(report: Report, name: str) -> str:
    if name == "cq":
        return "ours"
    return "kept" if report.about[name]["store"] == "PostgreSQL" else "other"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

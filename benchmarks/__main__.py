"""
`python -m benchmarks [quick|peers|growth|page]`: measure, print, and write docs/performance.md.

`quick` is cq alone with the regression guard (exit code 1 when a ratio fell), `peers` is
everything side by side, `growth` is cq against what piles up, `page` writes the page again from
what `peers` and `growth` kept in build/bench. `make bench`, `make bench-peers` and
`make bench-growth` start the private servers around it.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from dataclasses import replace
from importlib.metadata import version
from types import FrameType

import psycopg
import redis

from benchmarks import campaign, guard, limits, page
from benchmarks.campaign import Cell, Report
from benchmarks.environments import BUILD, ROOT
from benchmarks.figures import medians

DURABLE = ("cq", "saq_pg", "procrastinate", "pgqueuer", "django_tasks_db")
PEERS = (
    Cell("throughput", 20_000),
    Cell(
        "throughput", 5_000, "sync",
        contenders=("cq", "taskiq", "streaq", "procrastinate", "pgqueuer"),
    ),
    Cell("throughput", 5_000, "atomic", contenders=("cq",)),
    Cell("enqueue", 2_000),
    Cell("waits", 5_000, least=200),
    Cell("latency", 300),
    Cell("result", 200),
    Cell("fan-out", 1_000),
    Cell("fan-out", 10_000, contenders=("cq", "celery", "dramatiq", "huey", "streaq"), rounds=1),
    Cell("fresh", 20_000, contenders=("cq", "procrastinate", "pgqueuer")),
    Cell("backlog", 1_000_000, contenders=DURABLE, rounds=1),
)  # fmt: skip
GROWTH = (
    *[
        Cell("grow-backlog", size, contenders=("cq",))
        for size in (1_000, 10_000, 100_000, 1_000_000)
    ],
    *[Cell("grow-history", size, contenders=("cq",)) for size in (10_000, 100_000, 1_000_000)],
    *[Cell("grow-transaction", size, contenders=("cq",)) for size in (1_000, 20_000, 100_000)],
    *[Cell("grow-batches", size, least=size, contenders=("cq",)) for size in (1, 10, 100, 500)],
    *[Cell("grow-processes", size, least=size, contenders=("cq",)) for size in (1, 2, 3, 4)],
    *[Cell("grow-children", size, contenders=("cq",)) for size in (100, 1_000, 10_000)],
    *[Cell("grow-watchers", size, least=size, contenders=("cq",)) for size in (0, 10, 100)],
)  # fmt: skip


def main() -> int:
    """Run what was asked for; the exit code is 1 when the guard found a regression."""
    signal.signal(signal.SIGTERM, _end)
    given = _arguments()
    if given.what == "quick":
        return _quick(given)
    if given.what == "page":
        page.write_peers(Report.load(BUILD / "peers.json"))
        page.write_growth(Report.load(BUILD / "growth.json"))
        return 0
    report = Report(facts=_facts(given))
    names = ["cq"] if given.what == "growth" else given.only
    cells = [
        cell
        for cell in (GROWTH if given.what == "growth" else PEERS)
        if not given.workloads or cell.workload in given.workloads
    ]
    scale = given.scale
    if given.what == "growth":
        # The size is what the tables are about, so the cells bear the one that is measured.
        cells, scale = [replace(cell, size=cell.scaled(scale)) for cell in cells], 1.0
    crowd = campaign.entrants(report, names)
    report.limits = limits.measure(given.rounds, given.scale)
    campaign.run(report, cells, crowd, rounds=given.rounds, scale=scale)
    report.save(BUILD / f"{given.what}.json")
    if given.page:
        (page.write_growth if given.what == "growth" else page.write_peers)(report)
        print(f"Written into {page.PAGE.relative_to(ROOT)}.")
    return 0


def _quick(given: argparse.Namespace) -> int:
    report = Report(facts=_facts(given))
    crowd = campaign.entrants(report, ["cq"])
    # Before and after, since a machine that others use changes under the run.
    before = limits.measure(given.rounds, given.scale)
    campaign.run(report, guard.CELLS, crowd, rounds=given.rounds, scale=given.scale)
    report.limits = medians([before, limits.measure(given.rounds, given.scale)])
    print(f"\n{', '.join(f'{name} {value}' for name, value in report.facts.items())}\n")
    guard.show(report)
    found = guard.shortfalls(report)
    for text in found:
        print(f"! {text}", file=sys.stderr)
    return 1 if found or report.problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="?", default="quick", choices=("quick", "peers", "growth", "page")
    )
    parser.add_argument("--rounds", type=int, default=guard.ROUNDS, help="rounds of each (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes (1)")
    parser.add_argument("--only", type=_names, help="contenders, by commas (default: all)")
    parser.add_argument("--workloads", type=_names, help="workloads, by commas (default: all)")
    parser.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True,
        help="write docs/performance.md",
    )  # fmt: skip
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _facts(given: argparse.Namespace) -> dict[str, str]:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        server = connection.info.server_version // 10_000
    info = redis.Redis.from_url(os.environ["REDIS_URL"]).info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "Python": platform.python_version(),
        "Django": version("Django"),
        "PostgreSQL": str(server),
        name: str(info.get("valkey_version", info["redis_version"])),
        "CPUs": str(os.cpu_count()),
        "rounds": str(given.rounds),
        "scale": f"{given.scale:g}",
    }


def _end(number: int, frame: FrameType | None) -> None:
    # Through the finally clauses, which end what was started.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

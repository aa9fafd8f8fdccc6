"""
`python -m benchmarks [ROUNDS]`: the table of figures, medians of several rounds.

Expects DATABASE_URL and REDIS_URL (`make bench` sets them) and an empty database.
"""

import os
import platform
import statistics
import sys
from collections.abc import Callable

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from benchmarks import measure  # noqa: E402

TARGETS = {
    "20,000 async no-ops, 2 processes": {"tasks/s": ">= 8000", "delay() p50 ms": "<= 0.6"},
    "idle worker, one task at a time": {"start p50 ms": "<= 3", "round trip p50 ms": "<= 5"},
    "1 parent, 1,000 children": {"seconds": "<= 0.6"},
}

WORKLOADS: dict[str, Callable[[], measure.Figures]] = {
    "20,000 async no-ops, 2 processes": lambda: measure.throughput("noop", 20_000),
    "5,000 sync no-ops, 2 processes": lambda: measure.throughput("noop_sync", 5_000),
    "5,000 atomic no-ops, 2 processes": lambda: measure.throughput("noop_atomic", 5_000),
    "2,000 waits of 50 ms, 100 slots": lambda: measure.waits(2_000, 0.05, 100),
    "idle worker, one task at a time": lambda: measure.latency(300),
    "1 parent, 1,000 children": lambda: measure.fan_out(1_000),
    "delay_many(), 1,000 at a time": lambda: measure.bulk(20_000),
}


def main() -> None:
    """Run every workload so many rounds and print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    call_command("migrate", verbosity=0)
    print(
        f"Python {platform.python_version()}, Django {django.__version__}, "
        f"{os.cpu_count()} CPUs, medians of {rounds} rounds, default settings\n"
    )
    print(f"{'workload':36} {'figure':20} {'value':>10}  target")
    for name, workload in WORKLOADS.items():
        found = [workload() for _ in range(rounds)]
        for figure in found[0]:
            value = statistics.median(round_[figure] for round_ in found)
            target = TARGETS.get(name, {}).get(figure, "")
            print(f"{name:36} {figure:20} {value:10,.2f}  {target}", flush=True)


if __name__ == "__main__":
    main()

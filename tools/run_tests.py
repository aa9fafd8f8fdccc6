"""
Run the tests in the right parts: `python tools/run_tests.py fast|compatible|full|all [pytest …]`.

One Django project has one database, so the suite runs on PostgreSQL and what must hold on
SQLite as well runs once more on a SQLite file. Parts run in lanes beside each other, each with
servers of its own, since most tests wait for other processes most of the time. Every part runs
even after a failure; the last line counts them together. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
COUNTED = ("tests", "failures", "errors", "skipped")

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One run of pytest: what it is called, its folders or options, and its database."""

    name: str
    arguments: tuple[str, ...]
    database: str = "postgres"


UNITS = Part("units", ("tests/unit", "tests/architecture", "tests/docs"))
DEMO = Part("demo", ("tests/demo",))
CONFORMANCE = Part("conformance on PostgreSQL", ("tests/conformance",))
SQLITE = Part("conformance on SQLite", ("tests/conformance",), "sqlite")
INTEGRATION = Part("integration", ("tests/integration",))
FAULTS = Part("faults", ("tests/faults",))
BROWSER = Part("browser", ("tests/browser",))

Lane = tuple[Part, ...]
QUIET = ("-m", "not exhaustive")
PLANS: dict[str, tuple[tuple[str, ...], tuple[Lane, ...]]] = {
    "fast": ((), ((UNITS,),)),
    "compatible": (QUIET, ((INTEGRATION,), (UNITS, DEMO, CONFORMANCE, SQLITE))),
    "full": (QUIET, ((INTEGRATION,), (BROWSER, FAULTS, UNITS, DEMO, CONFORMANCE, SQLITE))),
    # One after the other: the full-size proofs want the machine for themselves.
    "all": ((), ((UNITS, DEMO, CONFORMANCE, SQLITE, INTEGRATION, FAULTS, BROWSER),)),
}


def main(plan: str, extra: list[str]) -> int:
    started = time.monotonic()
    options, lanes = PLANS[plan]
    output = threading.Lock()

    def run_lane(lane: Lane) -> list[tuple[int, Counts]]:
        return [run(part, (*options, *extra), output, live=len(lanes) == 1) for part in lane]

    with ThreadPoolExecutor(len(lanes)) as pool:
        ends = [end for lane in pool.map(run_lane, lanes) for end in lane]
    totals = {name: sum(counts[name] for _, counts in ends) for name in COUNTED}
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    print(f"\nTook {time.monotonic() - started:.0f} s.")
    print(f"{passed} passed, {failed} failed, {totals['skipped']} skipped", flush=True)
    # 5 is "no test": a part that lost its tests has failed.
    return 1 if failed or any(code for code, _ in ends) else 0


def run(
    part: Part, extra: Iterable[str], output: threading.Lock, *, live: bool
) -> tuple[int, Counts]:
    """Run one part; return pytest's exit code and what its report counts."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cq-tests-") as directory:
        report, log = Path(directory) / "report.xml", Path(directory) / "output"
        command = (sys.executable, "-m", "pytest", "-q", f"--junitxml={report}")
        if live:
            print(f"\n--- {part.name}", flush=True)
        with log.open("wb") as file:
            code = subprocess.run(
                [*command, *part.arguments, *extra],
                cwd=ROOT,
                env={**os.environ, "CQ_TEST_DB": part.database},
                stdin=subprocess.DEVNULL,
                stdout=None if live else file,
                stderr=None if live else subprocess.STDOUT,
            ).returncode
        if not live:
            with output:
                print(f"\n--- {part.name} ({time.monotonic() - started:.0f} s)", flush=True)
                print(log.read_text(errors="replace"), flush=True)
        return code, _counts(report)


def _counts(report: Path) -> Counts:
    totals = dict.fromkeys(COUNTED, 0)
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in COUNTED:
                totals[name] += int(suite.get(name, "0"))
    return totals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

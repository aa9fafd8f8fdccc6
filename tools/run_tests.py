"""
Run the tests in the right parts: `python tools/run_tests.py fast|compatible|full|all [pytest …]`.

One Django project has one database, so the suite runs on PostgreSQL and what must hold on
SQLite as well runs once more on a SQLite file. Every part runs even after a failure; the last
line counts them together. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
COUNTED = ("tests", "failures", "errors", "skipped")


@dataclass(frozen=True, slots=True)
class Part:
    """One run of pytest: what it is called, its arguments, and its database."""

    name: str
    arguments: tuple[str, ...]
    database: str = "postgres"


QUICK = ("tests/unit", "tests/architecture", "tests/docs")
FAST = (Part("units", QUICK),)
COMPATIBLE = (
    Part("PostgreSQL", ("-m", "not exhaustive and not browser", "--ignore=tests/faults")),
    Part("SQLite", ("-m", "not exhaustive", "tests/conformance"), "sqlite"),
)
FULL = (
    Part("PostgreSQL", ("-m", "not exhaustive")),
    Part("SQLite", ("-m", "not exhaustive", "tests/conformance"), "sqlite"),
)
ALL = (
    Part("PostgreSQL", ("-m", "")),
    Part("SQLite", ("-m", "", "tests/conformance"), "sqlite"),
)
PLANS = {"fast": FAST, "compatible": COMPATIBLE, "full": FULL, "all": ALL}


def main(plan: str, extra: list[str]) -> int:
    started, totals, broken = time.monotonic(), dict.fromkeys(COUNTED, 0), False
    for part in PLANS[plan]:
        print(f"\n--- {part.name} " + "-" * (70 - len(part.name)), flush=True)
        code, counts = run(part, extra)
        # 5 is "no test": a part that lost its tests has failed.
        broken = broken or code != 0
        for name in COUNTED:
            totals[name] += counts[name]
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    print(f"\nTook {time.monotonic() - started:.0f} s.")
    print(f"{passed} passed, {failed} failed, {totals['skipped']} skipped", flush=True)
    return 1 if broken or failed else 0


def run(part: Part, extra: list[str]) -> tuple[int, dict[str, int]]:
    """Run one part; return pytest's exit code and what its report counts."""
    with tempfile.TemporaryDirectory(prefix="cq-tests-") as directory:
        report = Path(directory) / "report.xml"
        command = (sys.executable, "-m", "pytest", "-q", f"--junitxml={report}")
        code = subprocess.run(
            [*command, *part.arguments, *extra],
            cwd=ROOT,
            env={**os.environ, "CQ_TEST_DB": part.database},
            stdin=subprocess.DEVNULL,
        ).returncode
        return code, _counts(report)


def _counts(report: Path) -> dict[str, int]:
    totals = dict.fromkeys(COUNTED, 0)
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in COUNTED:
                totals[name] += int(suite.get(name, "0"))
    return totals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""
Run the tests in the right parts: `python tools/run_tests.py PLAN [pytest …]`, where the plan is
fast, compatible, full, slow, all, faults or soak.

One Django project has one database, so the suite runs on PostgreSQL and what must hold on
SQLite as well runs once more on a SQLite file. Parts run beside each other, each with
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
    """One run of pytest: its name, its folders, its database, whether that prepares, and where."""

    name: str
    arguments: tuple[str, ...]
    database: str = "postgres"
    is_prepared: bool = False
    is_bare: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, how much of it at once, and what comes afterwards by itself."""

    parts: tuple[Part, ...]
    options: tuple[str, ...] = ()
    lanes: int = 1
    alone: tuple[Part, ...] = ()


def _named(folder: str, *words: str, others: tuple[str, ...] = ()) -> Iterable[str]:
    """The test files of a folder with one of the words in their names, or not among others."""
    for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file not in others and (not words or any(word in path.name for word in words)):
            yield file


UNITS = Part("units", ("tests/unit", "tests/architecture", "tests/docs"))
DEMO = Part("demo", ("tests/demo",))
CONFORMANCE = Part("conformance on PostgreSQL", ("tests/conformance",), is_prepared=True)
SQLITE = Part("conformance on SQLite", ("tests/conformance",), "sqlite")
WORKERS = Part("worker processes", tuple(_named("integration", "worker", "supervis")))
COMMANDS = Part(
    "commands", tuple(_named("integration", "command", "upgrade", "publisher", "testing_kit"))
)
INTEGRATION = Part(
    "integration", tuple(_named("integration", others=(*WORKERS.arguments, *COMMANDS.arguments)))
)
ON_SQLITE = Part(
    "faults on SQLite",
    (
        "tests/faults/test_sqlite.py",
        "tests/faults/test_sweep.py::test_two_points_of_the_sweep",
        "tests/faults/test_sweep.py::test_nothing_breaks_when_a_rescuer_dies_or_fails",
    ),
    "sqlite",
)
FAULTS = Part("faults", tuple(_named("faults", others=ON_SQLITE.arguments)))
SWEEP = Part("sweep", tuple(_named("faults", "sweep")))
MONKEY = Part("monkey and deaths", tuple(_named("faults", "monkey", "death")))
HUNDREDS = Part("hundreds", tuple(_named("faults", "hundreds")))
CROWDS = Part("crowds", tuple(_named("faults", "crowd")))
APART = (ON_SQLITE, SWEEP, MONKEY, HUNDREDS, CROWDS)
MATRIX = Part(
    "matrix",
    tuple(_named("faults", others=tuple(file for part in APART for file in part.arguments))),
)
IDLE = Part("idle worker", tuple(_named("integration", "worker_idle")))
POISON = Part("poison", tuple(_named("integration", "worker_limits")))
# Neither fork nor the signals of POSIX: what is not about them has to pass without.
BARE = Part(
    "without POSIX",
    (
        *("tests/conformance", "tests/unit/definition", "tests/unit/execution"),
        *("tests/unit/transport", "-k", "not forked", "-m", "not exhaustive and not slow"),
    ),
    "sqlite",
    is_bare=True,
)
SOAK = Part("soak", ("tests/faults/test_monkey.py",))
BROWSER = Part("browser", ("tests/browser",))

QUIET = ("-m", "not exhaustive and not slow")
# The longest first: what is left at the end must be short.
MOST = (WORKERS, COMMANDS, INTEGRATION, CONFORMANCE, DEMO, UNITS, SQLITE)
PLANS = {
    "fast": Plan((UNITS,)),
    "compatible": Plan(MOST, QUIET, lanes=2),
    "full": Plan((BROWSER, *MOST[:3], FAULTS, *MOST[3:]), QUIET, lanes=3),
    # One after the other: the full-size proofs want the machine for themselves.
    "all": Plan((BROWSER, *MOST, FAULTS, ON_SQLITE)),
    # What `make test` leaves out to take minutes, and the gate runs all the same.
    "slow": Plan((BROWSER, IDLE, CONFORMANCE), ("-m", "slow and not exhaustive"), lanes=2),
    # Most of it waits for leases; what measures rates comes by itself.
    "faults": Plan(
        (SWEEP, MATRIX, MONKEY, HUNDREDS, ON_SQLITE, POISON, BARE), lanes=3, alone=(CROWDS,)
    ),
    "soak": Plan((SOAK,), ("-s", "-k", "as_long_as_you_like")),
}


def main(name: str, extra: list[str]) -> int:
    plan, started, output = PLANS[name], time.monotonic(), threading.Lock()

    def run_part(part: Part) -> tuple[int, Counts]:
        return run(part, (*plan.options, *extra), output, live=plan.lanes == 1)

    with ThreadPoolExecutor(plan.lanes) as pool:
        ends = list(pool.map(run_part, plan.parts))
    ends += map(run_part, plan.alone)
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
                env={**os.environ, **_environment(part)},
                stdin=subprocess.DEVNULL,
                stdout=None if live else file,
                stderr=None if live else subprocess.STDOUT,
            ).returncode
        if not live:
            with output:
                print(f"\n--- {part.name} ({time.monotonic() - started:.0f} s)", flush=True)
                print(log.read_text(errors="replace"), flush=True)
        return code, _counts(report)


def _environment(part: Part) -> dict[str, str]:
    # Workers prepare their statements, so what must hold of the engine is shown that way;
    # the other parts cover the sessions that do not.
    prepared = {"CQ_TEST_PREPARED": "1"} if part.is_prepared else {}
    bare = {"PYTHONPATH": str(ROOT / "tests" / "bare")} if part.is_bare else {}
    return {"CQ_TEST_DB": part.database, **prepared, **bare}


def _counts(report: Path) -> Counts:
    totals = dict.fromkeys(COUNTED, 0)
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in COUNTED:
                totals[name] += int(suite.get(name, "0"))
    return totals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

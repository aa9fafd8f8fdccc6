"""
A campaign: contenders × workloads × rounds, each round in a process and a database of its own.

What enters is a plan; what leaves is a Report, which is kept as JSON so that the page can be
made again. A contender that cannot be installed, fails or hangs becomes a line of the report.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from benchmarks import meter
from benchmarks.environments import BUILD, ROOT, EnvironmentFailed, environments
from benchmarks.figures import Figures, medians, spread
from benchmarks.processes import kill, members

PROBE_SECONDS = 400


@dataclass(frozen=True, slots=True)
class Cell:
    """One workload of the plan: its size at full scale, and who is asked."""

    workload: str
    size: int
    kind: str = ""
    least: int = 20
    contenders: tuple[str, ...] | None = None
    """None is everybody."""
    rounds: int | None = None

    @property
    def name(self) -> str:
        """How reports name it."""
        return f"{self.workload} {self.kind}".strip() + f" {self.size}"

    def scaled(self, scale: float) -> int:
        """The size at a smaller scale."""
        return max(self.least, int(self.size * scale))


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender, and the interpreter of its environment."""

    name: str
    python: str
    version: str


@dataclass(slots=True)
class Report:
    """Everything a run found: figures by workload and contender, and what went wrong."""

    facts: dict[str, str] = field(default_factory=dict)
    about: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: Figures = field(default_factory=dict)
    found: dict[str, dict[str, Figures]] = field(default_factory=dict)
    spreads: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Keep it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a kept one."""
        return cls(**json.loads(path.read_text()))

    def say(self, text: str) -> None:
        """Keep a problem and print it."""
        self.problems.append(text)
        print(f"  ! {text}", flush=True)


def entrants(report: Report, only: Iterable[str] | None = None) -> list[Entrant]:
    """cq, and every peer that could be installed."""
    wanted = set(only or ())
    found = []
    if not wanted or "cq" in wanted:
        found.append(Entrant("cq", sys.executable, "this repository"))
    for environment in environments():
        names = [name for name in environment.contenders if not wanted or name in wanted]
        if not names:
            continue
        print(f"{environment.name} {environment.version}", flush=True)
        try:
            python = str(environment.ensure())
        except EnvironmentFailed as problem:
            report.say(f"{environment.name} cannot be installed here: {problem}")
            continue
        found += [Entrant(name, python, environment.version) for name in names]
    return [entrant for entrant in found if _describe(report, entrant)]


def _describe(report: Report, entrant: Entrant) -> bool:
    """Ask for its title and settings; False where it cannot even be imported."""
    with fresh_services() as environment:
        done = subprocess.run(
            [entrant.python, "-m", "benchmarks.probe", entrant.name, "describe", "0"],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        report.say(f"{entrant.name} does not start: {said_last(done.stderr)}")
        return False
    told = json.loads(done.stdout.strip().splitlines()[-1])
    report.about[entrant.name] = {**told, "version": entrant.version}
    return True


def run(
    report: Report, cells: Iterable[Cell], crowd: list[Entrant], *, rounds: int, scale: float
) -> None:
    """Measure every cell of every contender, round by round, and keep the medians."""
    for cell in cells:
        taken: dict[str, list[Figures]] = {}
        out: set[str] = set()
        for number in range(cell.rounds or rounds):
            # Everybody once, then everybody again: a slow minute of the machine hits all.
            for entrant in crowd:
                if cell.contenders is not None and entrant.name not in cell.contenders:
                    continue
                if entrant.name in out:
                    continue
                found = _one(report, cell, entrant, cell.scaled(scale))
                if found is None:
                    out.add(entrant.name)
                    continue
                taken.setdefault(entrant.name, []).append(found)
                _show(cell, entrant, number, found)
        report.found[cell.name] = {name: medians(found) for name, found in taken.items()}
        report.spreads[cell.name] = {
            name: spread(found, next(iter(found[0])))
            for name, found in taken.items()
            if len(found) > 1
        }


def _show(cell: Cell, entrant: Entrant, number: int, found: Figures) -> None:
    shown = "  ".join(f"{name} {value:,.2f}" for name, value in found.items())
    print(f"{cell.name:24} {entrant.name:16} {number + 1}  {shown}", flush=True)


def _one(report: Report, cell: Cell, entrant: Entrant, size: int) -> Figures | None:
    command = [entrant.python, "-m", "benchmarks.probe", entrant.name, cell.workload, str(size)]
    with fresh_services() as environment, _folder() as folder:
        environment |= {meter.FOLDER: str(folder), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*command, *([cell.kind] if cell.kind else [])],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            report.say(f"{entrant.name}, {cell.name}: no end within {PROBE_SECONDS} s.")
            return None
        finally:
            if process.poll() is None:
                kill(members(process.pid))
                process.communicate()
        if process.returncode:
            report.say(f"{entrant.name}, {cell.name}: {said_last(errors)}")
            _keep(entrant, cell, errors, folder)
            return None
    answer = json.loads(output.strip().splitlines()[-1])
    return None if "not offered" in answer else answer


def said_last(output: str) -> str:
    """The last line of a traceback that begins at the margin: the error, without its quotation."""
    lines = [line for line in output.splitlines() if line and not line[0].isspace()]
    named = [line for line in lines if re.match(r"[\w.]*[a-z]\w*: ", line)]
    return (named or lines or ["it printed nothing."])[-1][:300]


def _keep(entrant: Entrant, cell: Cell, errors: str, folder: Path) -> None:
    place = BUILD / "failures"
    place.mkdir(parents=True, exist_ok=True)
    parts = [errors]
    for log in sorted(folder.glob("*.log")):
        parts.append(f"--- {log.name} ---\n{log.read_text(errors='replace')}")
    name = f"{entrant.name}-{cell.name.replace(' ', '-')}.txt"
    (place / name).write_text("\n".join(parts))


@contextmanager
def _folder() -> Iterator[Path]:
    # In memory where the machine has that, so that counting never waits for a disk.
    shared = Path("/dev/shm")
    base = shared if shared.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="cq-bench-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def fresh_services() -> Iterator[dict[str, str]]:
    """An empty database of its own name and an empty Redis, as environment variables."""
    redis.Redis.from_url(os.environ["REDIS_URL"]).flushall()
    url = urlsplit(os.environ["DATABASE_URL"])
    name = "bench_round"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute("CHECKPOINT")
        yield {"DATABASE_URL": urlunsplit(url._replace(path=f"/{name}"))}
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

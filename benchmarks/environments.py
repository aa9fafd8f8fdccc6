"""
The environments of the contenders: one virtual environment for each section of pins.toml.

They live below build/bench/envs, are made with the Python that runs cq, and are kept while the
section is the same. cq runs in the environment of the caller. What cannot be installed is an
EnvironmentFailed, which the campaign prints as one line.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
PINS = Path(__file__).with_name("pins.toml")
INSTALL_SECONDS = 900


class EnvironmentFailed(Exception):
    """A peer cannot be installed here; the text is pip's last line."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One section of pins.toml."""

    name: str
    install: tuple[str, ...]
    contenders: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the virtual environment is."""
        return BUILD / "envs" / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def version(self) -> str:
        """The pinned versions, as the tables show them."""
        pinned = [part.rpartition("==")[2] for part in self.install if "==" in part]
        return " + ".join(pinned)

    def ensure(self) -> Path:
        """Install what is pinned, unless that was done before; return the interpreter."""
        stamp = self.folder / "installed"
        fingerprint = hashlib.sha256("\n".join([sys.version, *self.install]).encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == fingerprint:
            return self.python
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", str(self.folder))
        pip = (str(self.python), "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "install", *self.install)
        stamp.write_text(fingerprint)
        return self.python


def environments() -> list[Environment]:
    """Every peer's environment, in the order of the file."""
    found = tomllib.loads(PINS.read_text())
    return [
        Environment(name, tuple(section["install"]), tuple(section["contenders"]))
        for name, section in found.items()
    ]


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=INSTALL_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentFailed(str(problem)) from problem
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:]
        raise EnvironmentFailed(f"{' '.join(command[1:4])} failed: {' '.join(tail)}")

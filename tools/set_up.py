"""
Set up the project's virtual environment: `python3 tools/set_up.py EXTRA [EXTRA ...]`.

Makes .venv with the calling Python when it is missing and installs the project into it, with
the named extras of pyproject.toml. A stamp per set of extras makes a second call return at
once; a changed pyproject.toml or another Python makes it install again. Standard library
only, since it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("CQ_VENV", ".venv")
LEAST_PYTHON = (3, 11)


def main(extras: list[str]) -> int:
    if sys.version_info < LEAST_PYTHON:
        return _refuse(
            f"This is Python {sys.version.split()[0]} ({sys.executable}), and cq needs 3.11 or "
            "newer. Name a newer one: make PYTHON=python3.12 …"
        )
    python = VENV / "bin" / "python"
    fingerprint = _fingerprint(extras)
    stamp = VENV / f"installed-{'-'.join(extras)}"
    if python.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return 0
    if not python.exists() and _run(sys.executable, "-m", "venv", str(VENV)):
        return _refuse(
            f"{sys.executable} cannot make a virtual environment in {VENV}. "
            "On Debian and Ubuntu run `apt-get install python3-venv` and try again."
        )
    _say(f"Installing cq with {', '.join(extras)} into {VENV.name} …")
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--quiet")
    requirement = f"{ROOT}[{','.join(extras)}]"
    pins = os.environ.get("CQ_REQUIRE", "").split()
    if _run(*pip, "install", "--editable", requirement, *pins):
        return _refuse(
            f"pip could not install {requirement}. The lines above say why; when it is the "
            "network, repeat the command once it is back."
        )
    stamp.write_text(fingerprint)
    return 0


def _fingerprint(extras: list[str]) -> str:
    parts = (
        (ROOT / "pyproject.toml").read_text(),
        os.environ.get("CQ_REQUIRE", ""),
        ",".join(extras),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _run(*command: str) -> int:
    # pip writes its warnings to stderr; make's own output stays readable.
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode


def _say(text: str) -> None:
    print(text, flush=True)


def _refuse(text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["test"]))

"""
A project written by following a page: its code blocks become files, its commands are run.

A `python` or `html+django` block whose first line is a comment with a path is that file, or is
added to it where the comment says "at the end". `console` blocks are typed, and what they show is
compared, `...` standing for anything; `pycon` blocks are typed into `manage.py shell`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FILE_COMMENT = re.compile(r"^(?:#|\{#) (?P<path>[\w./-]+\.\w+)(?P<added>, at the end)?(?: #\})?$")
BLOCK = re.compile(r"^```(?P<language>[\w+]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SET_UP = ("python3 -m venv", ". venv/", "pip install")
"""What the reader types to have cq, and a test has already."""

DOCTEST = """
import doctest, sys
test = doctest.DocTestParser().get_doctest({text!r}, {{}}, "the page", None, 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
runner.run(test)
sys.exit(runner.summarize(verbose=False).failed)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One code block of a page."""

    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command of a `console` block with the output it shows, which may be empty."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        return [(part.split("\n", 1)[0], part.split("\n", 1)[1].strip()) for part in parts]


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    return [Block(found["language"], found["text"]) for found in BLOCK.finditer(page.read_text())]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder in which a page is followed."""

    folder: Path

    def write(self, block: Block) -> str | None:
        """Write the file that a block shows; None when it shows none."""
        found = FILE_COMMENT.match(block.first_line)
        if found is None:
            return None
        path = self.folder / found["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if found["added"] else ""
        path.write_text(before + block.text)
        return found["path"]

    def command(self, line: str) -> list[str]:
        """The command line with this interpreter for `python`."""
        words = shlex.split(line)
        if words[0] == "django-admin":
            return [sys.executable, "-m", "django", *words[1:]]
        assert words[0] == "python", line
        return [sys.executable, *words[1:]]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: v for name, v in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, line: str, shown: str = "") -> str:
        """Type a command; fail with its output if it fails, or shows something else."""
        done = subprocess.run(
            self.command(line),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"
        pattern = ".*".join(map(re.escape, shown.split("...")))
        assert re.search(pattern, done.stdout, re.DOTALL), f"$ {line}\n{done.stdout}"
        return done.stdout

    def type_into_shell(self, text: str) -> None:
        """Type a `pycon` block into `manage.py shell` and compare what it answers."""
        code = DOCTEST.format(text=text)
        self.run(shlex.join(["python", "manage.py", "shell", "-v", "0", "-c", code]))

    @contextmanager
    def serving(self, line: str, sign: str) -> Iterator[subprocess.Popen[bytes]]:
        """Keep a command running that has printed `sign`; end it by SIGTERM."""
        log = self.folder / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(line),
                cwd=self.folder,
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: sign in log.read_text() or process.poll() is not None, 30)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            finally:
                process.kill()

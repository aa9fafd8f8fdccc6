"""
Run the processes of a Procfile side by side, as honcho or foreman would.

What enters is a list of named commands; their output comes out line by line behind their
names. Ctrl-C or SIGTERM asks all of them to stop and waits; a second one kills. When one
ends by itself the others are stopped too, since half a cluster is no cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92)


@dataclass(frozen=True, slots=True)
class Entry:
    """One process to run: its name in the output, and its shell command."""

    name: str
    command: str


def read(path: Path, counts: Mapping[str, int]) -> list[Entry]:
    """The entries of a Procfile, each as often as `counts` says (once by default)."""
    entries = []
    for line in path.read_text().splitlines():
        name, colon, command = line.partition(":")
        if not colon or name.lstrip().startswith("#"):
            continue
        name, count = name.strip(), counts.get(name.strip(), 1)
        entries += [
            Entry(f"{name}.{number}" if count > 1 else name, command.strip())
            for number in range(1, count + 1)
        ]
    return entries


class Runner:
    """The parent of the processes; `run()` returns when all have ended."""

    def __init__(
        self, entries: Iterable[Entry], *, directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._entries = list(entries)
        self._directory, self._environment = directory, dict(environment)
        self._width = max(len(entry.name) for entry in self._entries)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._events: SimpleQueue[str | None] = SimpleQueue()
        self._asked = 0
        self._lock = threading.Lock()

    def run(self) -> int:
        """Start everything; return 0 after a stop that was asked for, else the first code."""
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            for colour, entry in zip(COLOURS * len(self._entries), self._entries, strict=False):
                self._start(entry, colour)
            return self._watch()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, entry: Entry, colour: int) -> None:
        process = subprocess.Popen(
            entry.command,
            shell=True,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes[entry.name] = process
        threading.Thread(target=self._relay, args=(entry.name, process, colour)).start()

    def _relay(self, name: str, process: subprocess.Popen[str], colour: int) -> None:
        assert process.stdout is not None
        label = f"{name:<{self._width}} | "
        if sys.stdout.isatty():
            label = f"\033[{colour}m{label}\033[0m"
        for line in process.stdout:
            with self._lock:
                print(label + line.rstrip("\n"), flush=True)
        process.wait()
        self._events.put(name)

    def _watch(self) -> int:
        code, running = 0, set(self._processes)
        while running:
            name = self._events.get()
            if name is None:
                self._end(signal.SIGTERM if self._asked == 1 else signal.SIGKILL)
                continue
            running.discard(name)
            ended = self._processes[name].returncode
            if not self._asked:
                code = code or ended or 1
                print(f"{name} ended with code {ended}; stopping the others.", flush=True)
                self._asked = 1
                self._end(signal.SIGTERM)
        return code

    def _on_signal(self, number: int, frame: object) -> None:
        self._asked += 1
        self._events.put(None)

    def _end(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, number)

"""
Worker processes of a contender: started, watched for their memory, and ended.

The probe leads a session, in which everything that its workers fork is found in /proc and
ends with it, however it ends. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.contender import Command

GRACE_SECONDS = 5.0
LOOK_SECONDS = 0.02
LOG = "worker.log"


class Workers:
    """The processes of one run."""

    def __init__(self, commands: Sequence[Command], log: Path) -> None:
        self.log = log
        self.born = time.monotonic_ns()
        with log.open("ab") as output:
            self._leaders = [
                subprocess.Popen(
                    command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                    process_group=0,
                )
                for command in commands
            ]  # fmt: skip

    def ended(self) -> bool:
        """Whether one of them ended by itself."""
        return any(leader.poll() is not None for leader in self._leaders)

    def memory(self) -> float:
        """The proportional set size of all of them and their children, in MiB (Linux only)."""
        return sum(_pss(pid) for pid in members(os.getsid(0)) if pid != os.getpid()) / 1024

    def end(self) -> None:
        """Ask them to stop, and kill those that do not."""
        for leader in self._leaders:
            leader.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for leader in self._leaders:
            with contextlib.suppress(subprocess.TimeoutExpired):
                leader.wait(max(0.0, deadline - time.monotonic()))
        kill(set(members(os.getsid(0))) - {os.getpid()})
        for leader in self._leaders:
            leader.wait()


@contextlib.contextmanager
def working(commands: Sequence[Command], folder: Path, *, log: str = LOG) -> Iterator[Workers]:
    """Run the processes while the block runs."""
    workers = Workers(commands, folder / log)
    try:
        yield workers
    finally:
        workers.end()


def wait_until(
    condition: Callable[[], bool], *, within: float, workers: Workers | None = None
) -> bool:
    """Look until it is true; False when the time is up. Raises if a worker process ended."""
    deadline = time.monotonic() + within
    while not condition():
        if workers is not None and workers.ended():
            tail = workers.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"A worker process ended by itself: {' '.join(tail)[:200]}")
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def members(session: int) -> list[int]:
    """The processes of a session, as long as nothing in it starts another."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _session(pid) == session]


def kill(pids: Iterable[int]) -> None:
    """End processes at once; those that are gone already do not matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)

"""
A real web process: daphne with an application of the tests, and what it costs.

It starts on a free port of the loopback, on the database and layers of a WorkerFactory.
Its memory and its processor time are read from /proc, where there is one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.waiting import wait_until
from tests.workers import ROOT, WorkerFactory

MIB = 1024 * 1024


class WebProcess:
    """One running daphne."""

    def __init__(
        self,
        factory: WorkerFactory,
        application: str = "cq.asgi:application",
        *,
        cq: Mapping[str, Any] | None = None,
    ) -> None:
        self._log = factory.directory / "web.log"
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            **factory.environment,
            **factory.layer_environment(),
            "CQ_TEST_CQ": json.dumps(dict(cq or {})),
        }
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", "0", application],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        self.port = int(wait_until(self._listening, timeout=30))
        self.url = f"http://127.0.0.1:{self.port}"

    def _listening(self) -> str:
        found = re.search(r"Listening on TCP address 127\.0\.0\.1:(\d+)", self.output())
        if self._process.poll() is not None:
            raise AssertionError(f"daphne ended by itself. It printed:\n{self.output()}")
        return found[1] if found else ""

    def output(self) -> str:
        """Everything it printed so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)

    def mark_memory(self) -> float:
        """Forget the largest memory so far; returns the present one in MiB."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return memory(self.pid, "VmRSS")

    def peak_memory(self) -> float:
        """The largest resident memory since `mark_memory`, in MiB."""
        return memory(self.pid, "VmHWM")


def memory(pid: int, name: str) -> float:
    """One figure of /proc/PID/status, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.M)
    assert found is not None, f"/proc/{pid}/status says nothing of {name}"
    return int(found[1]) * 1024 / MIB


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

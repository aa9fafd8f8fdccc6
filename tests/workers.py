"""
Real workers: `manage.py cq_runworker` as a process of its own, as a person would start it.

A WorkerProcess is one such process with what it printed; the factory behind the
`worker_process` fixture starts them on the database and layers of the test and ends all of
them. Each leads its own process group, so that its children end with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
MANAGE = ROOT / "tests" / "manage.py"


@dataclass(slots=True)
class WorkerProcess:
    """One running `manage.py` command."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """Everything it printed so far."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process and its children with SIGKILL, and wait until they are gone."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self, timeout: float = 20.0) -> int:
        """Ask it to drain (SIGTERM) and return its exit code; kill it when it does not end."""
        if self.is_running:
            self.send(signal.SIGTERM)
            # A stopped process cannot drain.
            self.send(signal.SIGCONT)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"The worker {self.pid} did not end within {timeout:g} s of SIGTERM. "
                f"It printed:\n{self.output()}"
            ) from None

    def rows(self) -> list[Any]:
        """The Worker rows of this process and its children that are alive."""
        from cq.models import Worker

        return [row for row in Worker.objects.filter(alive=True) if self._owns(row.pid)]

    def _owns(self, pid: int) -> bool:
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False


@dataclass(slots=True)
class WorkerFactory:
    """Starts workers on one database; the fixture stops whatever is left."""

    environment: Mapping[str, str]
    directory: Path
    started: list[WorkerProcess] = field(default_factory=list)
    stop_timeout: float = 20.0
    layer_environment: Callable[[], Mapping[str, str]] = dict

    def __call__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cq: Mapping[str, Any] | None = None,
        processes: int = 1,
        ready: bool = True,
    ) -> WorkerProcess:
        """
        Start `cq_runworker ARGUMENTS` and return once `processes` Worker rows are alive.

        `cq` overrides keys of the CQ dict; `env` adds to the environment. With `ready=False`
        it returns at once, for a worker that is expected not to come up.
        """
        worker = self.manage("cq_runworker", *arguments, env=env, cq=cq)
        if ready:
            wait_until(lambda: self._is_up(worker, processes), timeout=30)
        return worker

    def manage(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cq: Mapping[str, Any] | None = None,
    ) -> WorkerProcess:
        """Start any `manage.py` command beside the test, without waiting for it."""
        log = self.directory / f"process-{len(self.started)}.log"
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            **self.environment,
            **self.layer_environment(),
            **({"CQ_TEST_CQ": json.dumps(cq)} if cq else {}),
            **(env or {}),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command_line(command),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(WorkerProcess(process, log))
        return self.started[-1]

    def stop_all(self) -> None:
        """End every process that still runs; called after the test."""
        for worker in self.started:
            if worker.is_running:
                worker.send(signal.SIGTERM)
                worker.send(signal.SIGCONT)
        for worker in self.started:
            try:
                worker.process.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                worker.kill()

    @staticmethod
    def _command_line(command: Sequence[str]) -> list[str]:
        return [sys.executable, "-W", "error", "-X", "faulthandler", str(MANAGE), *command]

    @staticmethod
    def _is_up(worker: WorkerProcess, processes: int) -> bool:
        if not worker.is_running:
            raise AssertionError(
                f"The worker ended with code {worker.process.returncode} before it was ready. "
                f"It printed:\n{worker.output()}"
            )
        return len(worker.rows()) >= processes

"""The worker inside runserver and daphne: there before the first request, drained at the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sampleapp import trouble
from tests.workers import MANAGE, ROOT

WaitUntil = Callable[..., Any]

DELAY = f"from {trouble.MODULE} import log_slowly; print(log_slowly.delay(600, 0.1).id.hex)"
RUNSERVER = [str(MANAGE), "runserver", "--skip-checks"]
DAPHNE = ["-m", "daphne", "cq.asgi:application", "-p"]


@dataclass(slots=True)
class Server:
    """A web process that nobody asks anything, its task, and what it printed."""

    process: subprocess.Popen[bytes]
    database: Path
    log: Path
    code: Path
    task: str

    def row(self) -> tuple[Any, ...]:
        """The task's status, and how often it was claimed, handed back, and lost by a death."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(
                "SELECT status, attempts, releases, crashes FROM cq_task WHERE id = ?", [self.task]
            ).fetchone()

    def end(self, number: signal.Signals, pid: int | None = None) -> None:
        """What a terminal does at Ctrl-C, or a process manager; or to one process of it."""
        os.kill(pid or self.process.pid, number)
        self.process.wait(15)

    @property
    def child(self) -> int:
        """The process below the reloader's, which serves."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server on a SQLite file of its own, with one `def` task of a minute waiting."""
    database, code = tmp_path / "site.sqlite3", tmp_path / "code_of_a_project.py"
    code.write_text("")
    settings = {"EMBEDDED": True, "TASK_MODULES": [trouble.MODULE, code.stem]}
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "tests.embedded_settings",
        "CQ_TEST_DATABASE_URL": f"sqlite:///{database}",
        "CQ_TEST_LAYER": "memory",
        "CQ_TEST_CQ": json.dumps(settings),
    }
    started: list[Server] = []

    def manage(*command: str) -> str:
        words = [sys.executable, str(MANAGE), *command]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(*command: str) -> Server:
        manage("migrate", "-v0", "--run-syncdb")
        task = manage("shell", "-v0", "-c", DELAY).split()[-1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        log = tmp_path / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command, port],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(Server(process, database, log, code, task))
        return started[-1]

    yield start
    for server in started:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def changed_until(server: Server, row: tuple[Any, ...]) -> bool:
    """
    Change the code while nothing came of it; whether the row is as given.

    The reloader looks once a second, and a file that changed before it first looked is not
    changed for it. On a busy machine the worker is faster than that first look.
    """
    found = server.row()
    if found == ("R", 1, 0, 0):
        server.code.write_text(f"changed = {time.time_ns()}\n")
    return found == row


@pytest.mark.long
def test_a_reload_hands_back_what_runs(serve: Callable[..., Server], wait_until: WaitUntil) -> None:
    server = serve(*RUNSERVER)
    wait_until(lambda: server.row() == ("R", 1, 0, 0), timeout=30)
    # Uncharged: what was handed back is in its first attempt once more.
    wait_until(lambda: changed_until(server, ("R", 1, 1, 0)), timeout=30)
    # The child alone: its parent would kill it a quarter of a second after a Ctrl-C.
    server.end(signal.SIGINT, server.child)
    assert server.row() == ("Q", 0, 2, 0)
    output = server.log.read_text()
    assert output.count("Quit the server") == 2
    assert "Traceback" not in output, output


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [[*RUNSERVER, "--noreload"], DAPHNE], ids=["noreload", "daphne"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_server_hands_back_what_runs(
    serve: Callable[..., Server], wait_until: WaitUntil, command: list[str], number: signal.Signals
) -> None:
    server = serve(*command)
    wait_until(lambda: server.row() == ("R", 1, 0, 0), timeout=30)
    server.end(number)
    assert server.row() == ("Q", 0, 1, 0)
    assert "Traceback" not in server.log.read_text(), server.log.read_text()

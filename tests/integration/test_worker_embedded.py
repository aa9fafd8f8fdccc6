"""The worker inside a web process: daphne, SQLite, no service, and a shell beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sampleapp import trouble
from tests.workers import MANAGE, ROOT

WaitUntil = Callable[..., Any]

SHELL = """
import time
from tests.sampleapp.tasks import add
add.delay(1, 1).wait(10)
for _ in range(3):
    began = time.monotonic()
    assert add.delay(2, 3).wait(10) == 5
    print("took", time.monotonic() - began)
"""


@dataclass(slots=True)
class Site:
    """A running web process: its address, its environment, what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    environment: dict[str, str]
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)

    def is_up(self) -> bool:
        with suppress(urllib.error.URLError, ConnectionError):
            return bool(self.get("/read"))
        return False

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def manage(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(
        [sys.executable, str(MANAGE), *command],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture
def site(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Site]:
    """daphne with cq.asgi.application on a SQLite file of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = {"EMBEDDED": True, "THREADS": 10, "TASK_MODULES": [trouble.MODULE]}
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "tests.embedded_settings",
        "CQ_TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}",
        "CQ_TEST_LAYER": "memory",
        "CQ_TEST_CQ": json.dumps(settings),
    }
    manage(environment, "migrate", "-v0", "--run-syncdb")
    log = tmp_path / "daphne.log"
    command = [sys.executable, "-m", "daphne", "-p", str(port), "cq.asgi:application"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    found = Site(process, port, environment, log)
    try:
        wait_until(found.is_up, timeout=20)
        yield found
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_bodies_that_log_overlap_and_hold_up_nobody(site: Site, wait_until: WaitUntil) -> None:
    answered = []

    def get(path: str) -> Any:
        began = time.monotonic()
        answer = site.get(path)
        answered.append(time.monotonic() - began)
        return answer

    assert len(get("/enqueue?call=[9,25,0.1]")["ids"]) == 9
    # Every body has recorded lines while all of them run, and views go on writing.
    wait_until(lambda: get("/write") and get("/read")["logging"] == 9)
    assert {task["status"] for task in get("/read")["tasks"]} == {"R"}

    def all_ended() -> bool:
        get("/write")
        return {task["status"] for task in get("/read")["tasks"]} == {"S"}

    wait_until(all_ended, timeout=20)
    state = get("/read")
    spans = [task["result"] for task in state["tasks"]]
    assert max(began for began, _ in spans) < min(ended for _, ended in spans)
    assert state["lines"] == 9 * 25
    assert max(answered) < 1
    took = manage(site.environment, "shell", "-c", SHELL).split("took ")[1:]
    assert max(float(text) for text in took) < 0.5
    assert {task["attempts"] for task in get("/read")["tasks"]} == {1}
    assert "locked" not in site.output()
    assert "Traceback" not in site.output()
    site.process.send_signal(signal.SIGINT)

"""The worker inside a web process: daphne, SQLite, no service, and a shell beside it."""

from __future__ import annotations

import asyncio
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
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

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

    assert len(get("/enqueue?call=[9,25,0.1]")) == 9
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


async def watch(site: Site, id: str, token: str) -> list[tuple[float, int | None]]:
    """Watch a task to its end; the age of each line as it came first, and its number."""
    address = f"127.0.0.1:{site.port}"
    seen: dict[str, tuple[float, int | None]] = {}
    async with (
        asyncio.timeout(40),
        connect(
            f"ws://{address}/cq/ws",
            subprotocols=[Subprotocol("cq.v1")],
            additional_headers={"Origin": f"http://{address}"},
        ) as wire,
    ):
        await wire.send(json.dumps({"type": "sub", "id": id, "token": token}))
        async for text in wire:
            frame = json.loads(text)
            for line in frame.get("lines", ()):
                age = time.time() - datetime.fromisoformat(line["at"]).timestamp()
                age, _ = seen.get(line["message"], (age, None))
                seen[line["message"]] = (age, line["seq"])
            if frame["type"] == "end":
                return [seen[message] for message in sorted(seen, key=lambda key: int(key[5:]))]
    raise AssertionError("The socket was closed before the end.")


async def watch_all(site: Site, tokens: dict[str, str]) -> list[list[tuple[float, int | None]]]:
    return await asyncio.gather(*(watch(site, id, token) for id, token in tokens.items()))


@pytest.mark.long
def test_each_line_is_in_the_browser_within_a_second(site: Site) -> None:
    """Nine atomic bodies log ten times a second, on one SQLite file, and are watched live."""
    tokens = site.get("/enqueue?call=[9,40,0.1]")
    for lines in asyncio.run(watch_all(site, tokens)):
        assert [number for _, number in lines] == list(range(1, 41))
        assert max(age for age, _ in lines) < 1
    assert "locked" not in site.output()

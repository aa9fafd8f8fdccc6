"""
A crowd: many pages that watch tasks over real sockets, in a process of their own.

`python -m tests.crowd` reads one JSON line from standard input: `url`, and `watch`, a pair of
task and token for each page. It opens them, prints "ready" when each has its first frame, and
a Report when each has had its end: what was missing or came twice, and how long lines were
under way. Both ends of that way are on one machine, hence on one clock.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.workers import ROOT

ACK_SECONDS = 0.1
ACK_LINES = 100
HANDSHAKES_AT_ONCE = 20


@dataclass(slots=True)
class Report:
    """What the pages of a crowd have seen, all together."""

    lines: int = 0
    frames: int = 0
    gaps: int = 0
    repeats: int = 0
    ends: int = 0
    closed: int = 0
    delays: list[float] = field(default_factory=list)

    def delay(self, share: float) -> float:
        """The seconds within which this share of the lines had arrived."""
        return sorted(self.delays)[int(share * (len(self.delays) - 1))]


class Crowd:
    """A running crowd, seen from the test that asked for it."""

    def __init__(self, url: str, watch: Sequence[tuple[str, str]]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crowd"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"url": url, "watch": watch}) + "\n")
        self._process.stdin.flush()
        assert self._read() == "ready"

    def report(self) -> Report:
        """Wait for the end of every page."""
        made = Report(**json.loads(self._read()))
        self._process.wait(timeout=20)
        return made

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, f"The crowd ended with code {self._process.wait(timeout=20)}."
        return line


class Page:
    """One page: it checks the numbers of its lines, and acks as the element does."""

    def __init__(self, url: str, task: str, token: str, report: Report) -> None:
        self._url, self._task, self._token = url, task, token
        self._report = report
        self._seq = 0
        self._unacked = 0
        self._acked_at = 0.0
        self.began = asyncio.Event()

    async def run(self, turns: asyncio.Semaphore) -> None:
        await turns.acquire()
        async with connect(
            self._url.replace("http", "ws", 1) + "/cq/ws",
            subprotocols=[Subprotocol("cq.v1")],
            additional_headers={"Origin": self._url},
            compression=None,
            open_timeout=60,
            ping_interval=None,
        ) as socket:
            subscription = {"type": "sub", "id": self._task, "token": self._token, "since": 0}
            await socket.send(json.dumps(subscription))
            async for text in socket:
                if not self.began.is_set():
                    self.began.set()
                    turns.release()
                frame = json.loads(text)
                if self._take(frame):
                    return
                if self._is_ack_due():
                    await socket.send(json.dumps({"type": "ack", "frame": frame["frame"]}))
        self._report.closed += 1

    def _take(self, frame: dict[str, Any]) -> bool:
        """Look at one frame; True when it is the end."""
        report, now = self._report, time.time()
        report.frames += 1
        lines = frame.get("lines", ())
        self._unacked += max(1, len(lines))
        for line in lines:
            report.lines += 1
            report.repeats += line["seq"] <= self._seq
            report.gaps += line["seq"] > self._seq + 1
            self._seq = line["seq"]
            report.delays.append(now - datetime.fromisoformat(line["at"]).timestamp())
        if frame["type"] != "end":
            return False
        report.ends += 1
        report.gaps += frame.get("seq", self._seq) != self._seq
        return True

    def _is_ack_due(self) -> bool:
        now = time.monotonic()
        if self._unacked < ACK_LINES and now - self._acked_at < ACK_SECONDS:
            return False
        self._unacked, self._acked_at = 0, now
        return True


async def main(url: str, watch: Sequence[tuple[str, str]]) -> None:
    report, turns = Report(), asyncio.Semaphore(HANDSHAKES_AT_ONCE)
    pages = [Page(url, task, token, report) for task, token in watch]
    async with asyncio.TaskGroup() as tasks:
        for page in pages:
            tasks.create_task(page.run(turns))
        for page in pages:
            await page.began.wait()
        _say("ready")
    _say(json.dumps(asdict(report)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.stdin.readline())))

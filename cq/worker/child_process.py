"""
One child process of the pool, as its parent sees it: a line of JSON in, a word out.

The child ends when its input closes, so none outlives its parent, however that ended.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from uuid import UUID

from cq.models.transitions import Claimed
from cq.progress import publisher
from cq.transport.groups import audience_messages

logger = logging.getLogger("cq.worker")

_START_SECONDS = 60.0
_KILL_SECONDS = 5.0
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows ends a process at once by TERM


class ChildProcess:
    """A process that runs one task at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> bool:
        """Start the interpreter and load the project; False if it did not come up."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cq.worker.process_child",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                if await self._answers():
                    return True
        except TimeoutError:
            logger.error("A child process was not ready within %g s.", _START_SECONDS)
            return False
        logger.error("A child process ended before it was ready (%s).", self.describe_end())
        return False

    @property
    def is_alive(self) -> bool:
        """Whether the process has not been seen to end."""
        return self._process is not None and self._process.returncode is None

    async def execute(self, claimed: Claimed) -> bool:
        """Have a task run and completed; False if the process died on it."""
        if self._process is None or self._process.stdin is None:
            return False
        if publisher.watched(claimed.root.hex):
            self.announce([claimed.root.hex])
        try:
            self._write({"task": asdict(claimed)})
            await self._process.stdin.drain()
        except (ConnectionError, BrokenPipeError):
            return False
        return await self._answers()

    def announce(self, roots: list[str]) -> None:
        """Pass on that these roots are watched, so that the child tells its news at once."""
        for message in audience_messages(roots):
            self._write({"audience": message})

    def _write(self, words: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write((json.dumps(words, default=_plain) + "\n").encode())

    async def _answers(self) -> bool:
        if self._process is None or self._process.stdout is None:
            return False
        answer = await self._process.stdout.readline()
        if not answer:
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._process.wait()
        return bool(answer)

    async def kill(self) -> None:
        """End the process and see that it has ended."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.returncode is None:
            # Not by Process.kill(): that polls first, and would take the exit status away
            # from asyncio's own watcher.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, _KILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self._process.wait()

    def describe_end(self) -> str:
        """How the process ended, for people."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return "it closed its channel"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _plain(value: object) -> str:
    if isinstance(value, UUID):
        return value.hex
    raise TypeError(f"{value!r} is not part of a claimed task.")

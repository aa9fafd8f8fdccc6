"""
The pool of child processes behind `pool="process"`, and of suspects after a crash.

A child runs one claimed task at a time with its id and token, claims nothing and
completes it itself; the parent only waits for it, and kills it at its time limit or when
it is revoked. A child that dies takes nobody with it: its task is charged with a crash.
"""

import asyncio
import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from uuid import UUID

from cq import conf
from cq.definition.failure import describe_exception
from cq.definition.outcome import Crashed, Failed, Outcome
from cq.errors import TaskTimeout
from cq.models.transitions import Claimed

logger = logging.getLogger("cq.worker")

_START_SECONDS = 60.0


class ChildPool:
    """Child processes, started when they are first needed and used again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[Child] = []
        self._all: set[Child] = set()

    async def run(self, claimed: Claimed, limit: float | None) -> Outcome | None:
        """Run a task in a child; None when the child has completed it."""
        is_suspect = claimed.crashes > 0
        child = await self._take(fresh=is_suspect)
        reusable = False
        try:
            async with asyncio.timeout(limit):
                answer = await child.execute(claimed)
            reusable = answer and not is_suspect
        except TimeoutError:
            problem = TaskTimeout(
                f"{claimed.func_name} ran longer than its time limit of {limit:g} s, and its "
                "process was killed. Raise timeout=, or split the work into subtasks.",
                limit=limit,
            )
            return Failed(error=describe_exception(problem, conf.current().max_error_bytes))
        finally:
            if reusable:
                self._idle.append(child)
            else:
                self._all.discard(child)
                await child.kill()
        if not answer:
            return Crashed(
                f"The process that ran {claimed.func_name} died ({child.describe_end()})."
            )
        return None

    async def _take(self, *, fresh: bool) -> "Child":
        while self._idle and not fresh:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._all.discard(child)
        child = Child()
        self._all.add(child)
        await child.start()
        return child

    def close(self) -> None:
        """Kill every child."""
        for child in self._all:
            child.kill_now()
        self._all.clear()
        self._idle.clear()


class Child:
    """One child process, spoken to by lines of JSON."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the interpreter; it loads the project and waits for a task."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cq.worker.process_child",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._answer()

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.returncode is None

    async def execute(self, claimed: Claimed) -> bool:
        """Have a task run and completed; False if the process died on it."""
        assert self._process is not None and self._process.stdin is not None
        line = json.dumps(asdict(claimed), default=_plain) + "\n"
        try:
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()
        except (ConnectionError, BrokenPipeError):
            return False
        return await self._answer()

    async def _answer(self) -> bool:
        assert self._process is not None and self._process.stdout is not None
        return bool(await self._process.stdout.readline())

    async def kill(self) -> None:
        """Kill the process and wait for its end."""
        self.kill_now()
        if self._process is not None:
            await self._process.wait()

    def kill_now(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

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

"""
The pool of child processes behind `pool="process"`, and of suspects after a crash.

A child runs one claimed task at a time with its id and token, claims nothing and
completes it itself; the parent only waits for it, and kills it at its time limit or when
it is revoked. A child that dies takes nobody with it: its task is charged with a crash.
"""

import asyncio
import logging

from cq.definition import registry
from cq.definition.outcome import Crashed, Outcome, Released
from cq.errors import TaskTimeout
from cq.execution.invocation import failed
from cq.models.transitions import Claimed
from cq.worker.child_process import ChildProcess

logger = logging.getLogger("cq.worker")


class ChildPool:
    """At most `size` child processes, started when they are first needed and used again."""

    def __init__(self, size: int) -> None:
        self._room = asyncio.Semaphore(size)
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()

    async def run(self, claimed: Claimed, limit: float | None) -> Outcome | None:
        """Run a task in a child; None when the child has completed it."""
        # There are more suspects than children after the death of a busy worker.
        async with self._room:
            child = await self._take(fresh=claimed.crashes > 1)
            if child is None:
                return Released("No child process could be started to run it.")
            self._busy.add(child)
            answered = False
            try:
                async with asyncio.timeout(limit):
                    answered = await child.execute(claimed)
            except TimeoutError:
                return _too_long(claimed, limit or 0.0)
            finally:
                self._busy.discard(child)
                if answered:
                    self._idle.append(child)
                else:
                    await child.kill()
            if answered:
                return None
            return Crashed(
                f"The process that ran {claimed.func_name} died ({child.describe_end()})."
            )

    async def _take(self, *, fresh: bool) -> ChildProcess | None:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive and not fresh:
                return child
            await child.kill()
        child = ChildProcess()
        try:
            if await child.start():
                return child
        except OSError as problem:
            logger.error("No child process can be started: %s", problem)
        except asyncio.CancelledError:
            await child.kill()
            raise
        await child.kill()
        return None

    def announce(self, roots: list[str]) -> None:
        """Pass on to running children that these roots are watched."""
        for child in self._busy:
            child.announce(roots)

    async def close(self) -> None:
        """Kill every child."""
        children = [*self._busy, *self._idle]
        self._busy.clear()
        self._idle.clear()
        for child in children:
            await child.kill()


def _too_long(claimed: Claimed, limit: float) -> Outcome:
    problem = TaskTimeout(
        f"{claimed.func_name} ran longer than its time limit of {limit:g} s, and its process was "
        "killed. Raise timeout=, or split the work into subtasks.",
        limit=limit,
    )
    return failed(registry.lookup(claimed.func_name), claimed, problem)

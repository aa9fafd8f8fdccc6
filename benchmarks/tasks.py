"""
The bodies that the benchmarks run: next to nothing, so that the engine is what is measured.
"""

import asyncio
from typing import Any

from cq import task


@task
async def noop(cqt: Any) -> None:
    """Do nothing, on the loop."""


@task(atomic=False)
def noop_sync(cqt: Any) -> None:
    """Do nothing, in a thread."""


@task
def noop_atomic(cqt: Any) -> None:
    """Do nothing, in a transaction."""


@task
async def nap(cqt: Any, seconds: float) -> None:
    """Wait, like a task that talks to somebody slow."""
    await asyncio.sleep(seconds)


@task
async def fan_out(cqt: Any, children: int) -> None:
    """Spread into so many children."""
    for _ in range(children):
        cqt.subtask(noop)

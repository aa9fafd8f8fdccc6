"""
The bodies that cq runs: next to nothing, so that the engine is what is measured.
"""

import asyncio
from typing import Any

from benchmarks import meter
from cq import task


@task
async def noop(cqt: Any) -> None:
    """Do nothing, on the loop."""
    meter.bump()


@task(atomic=False)
def noop_sync(cqt: Any) -> None:
    """Do nothing, in a thread."""
    meter.bump()


@task
def noop_atomic(cqt: Any) -> None:
    """Do nothing, in a transaction."""
    meter.bump()


@task
async def nap(cqt: Any) -> None:
    """Wait 50 ms, like a task that talks to somebody slow."""
    await asyncio.sleep(0.05)
    meter.bump()


@task
async def stamp(cqt: Any, sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@task
async def echo(cqt: Any, value: Any) -> Any:
    """Give the argument back."""
    return value


@task
async def fan_out(cqt: Any, children: int) -> None:
    """Spread into so many children, and join after the last of them."""
    for _ in range(children):
        cqt.subtask(noop)
    cqt.chain(join)


@task
async def join(cqt: Any) -> None:
    """Follow the children."""
    meter.stamp(0)

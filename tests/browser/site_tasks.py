"""Tasks for the pages of the browser tests: one repeats what it is told, one tells the time."""

from __future__ import annotations

import asyncio
import time

from cq import task


@task
async def say(cqt, text: str) -> str:
    cqt.progress(1, 2, text)
    cqt.log(text)
    return text


@task
async def tell_time(cqt, count: int, seconds: float) -> None:
    """Report progress with the moment of each report, so that a page can tell its age."""
    for number in range(1, count + 1):
        cqt.progress(number, count, f"{time.time():.6f}")
        await asyncio.sleep(seconds)

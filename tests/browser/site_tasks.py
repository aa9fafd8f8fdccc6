"""A task that repeats whatever it is told, in every place that a page may show."""

from __future__ import annotations

from cq import task


@task
async def say(cqt, text: str) -> str:
    cqt.progress(1, 2, text)
    cqt.log(text)
    return text

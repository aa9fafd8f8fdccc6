"""
Mistakes that mypy must refuse.

Each line carries the error it must raise: strict mode also refuses an ignore that is not
needed, so a mistake that goes unnoticed fails `make check`.
"""

from __future__ import annotations

from cq import Context, task


@task
def add(cqt: Context, first: int, second: int = 0) -> int:
    return first + second


@task
async def fetch(cqt: Context, url: str, *, deep: bool = False) -> bytes:
    return url.encode()


def wrong_arguments() -> None:
    add("one")  # type: ignore[arg-type]
    add()  # type: ignore[call-arg]
    add.delay(1, 2, 3)  # type: ignore[call-arg]
    add.delay(1, third=3)  # type: ignore[call-arg]
    add.delay("one")  # type: ignore[arg-type]
    add.signature("one")  # type: ignore[arg-type]
    add.using(queue="low").delay("one")  # type: ignore[arg-type]


async def wrong_arguments_on_a_loop() -> None:
    await fetch.adelay(1)  # type: ignore[arg-type]
    await fetch.adelay("x", True)  # type: ignore[call-arg]
    await fetch("x", deep="yes")  # type: ignore[arg-type]


def wrong_result() -> str:
    return add(1)  # type: ignore[return-value]

"""
Uses of the public names that mypy must accept, with the types it must infer.

Checked by `make check`, never run: `assert_type` is what makes these lines tests.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from cq import Context, Signature, Task, task


@task
def add(cqt: Context, first: int, second: int = 0) -> int:
    cqt.log(f"{first} + {second}", level="DEBUG")
    return first + second


@task
async def fetch(cqt: Context, url: str, *, deep: bool = False) -> bytes:
    for _ in cqt.track(range(3), "fetching"):
        cqt.progress(1, 3)
    return url.encode()


@task("mail.send", queue="mail", retries=3, backoff=[1, 10], retry_exceptions=[OSError])
def send(cqt: Context, address: str) -> None:
    cqt.subtask(add, 1, second=2).chain(add, 4)


@task(priority=5, pool="process", timeout=10, coalesce="active")
def crunch(cqt: Context, *numbers: float) -> float:
    return sum(numbers)


@task(store_result=False)
async def write(cqt: Context) -> int:
    return await cqt.commit(lambda: 1)


def calls() -> None:
    assert_type(add(1, second=2), int)
    assert_type(crunch(1.0, 2.0), float)
    assert_type(add.delay(1), Task)
    assert_type(add.using(queue="low").delay(1, 2), Task)
    assert_type(add.delay_args((1,), {"second": 2}), Task)
    assert_type(add.delay_many([((1,), {}), add.signature(2)]), list[Task])
    assert_type(add.signature(1), Signature)
    send.delay("a@example.org")


def later() -> Coroutine[Any, Any, bytes]:
    return fetch("x")


async def calls_on_a_loop() -> None:
    assert_type(await fetch("x", deep=True), bytes)
    assert_type(await fetch.adelay("x", deep=True), Task)
    assert_type(await add.using(priority=1).adelay(1), Task)


def waits(row: Task) -> None:
    row.wait(timeout=2.5)
    row.revoke()
    assert_type(row.format_logs(), str)
    assert_type(Task.objects.active().count(), int)

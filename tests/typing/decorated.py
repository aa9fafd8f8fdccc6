"""
What `@task` with and without options, on `def` and `async def`, keeps of a signature.

Accepted lines have the types they must have; each refused one carries the error it must raise.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from cq import Context, Task, task
from cq.decorators import TaskFunction


@task
def bare(cqt: Context, number: int) -> int:
    return number


@task(retries=3)
def with_options(cqt: Context, number: int) -> int:
    return number


@task("named", queue="mail")
def named(cqt: Context, number: int) -> int:
    return number


@task(name="by keyword", backoff=0)
async def by_keyword(cqt: Context, number: int) -> int:
    return number


@task(timeout=5)
async def awaited(cqt: Context, number: int) -> int:
    return await cqt.commit(abs, number)


def kept() -> None:
    assert_type(bare(1), int)
    assert_type(with_options(1), int)
    assert_type(named(1), int)
    assert_type(with_options.delay(1), Task)
    assert_type(by_keyword.using(queue="x").delay(number=1), Task)
    assert_type(bare.delay(1).errorback(bare), Task)
    function: TaskFunction[[int], int] = bare
    function.delay(1)


def later() -> Coroutine[Any, Any, int]:
    return awaited(1)


async def kept_on_a_loop() -> None:
    assert_type(await awaited(1), int)
    row = await by_keyword.adelay(1)
    assert_type(await row.achain(bare), Task)
    assert_type(await row.aformat_logs(), str)


def refused() -> None:
    bare.delay("1")  # type: ignore[arg-type]
    with_options.delay("1")  # type: ignore[arg-type]
    named.delay("1")  # type: ignore[arg-type]
    by_keyword.delay("1")  # type: ignore[arg-type]
    awaited.delay("1")  # type: ignore[arg-type]
    awaited.delay()  # type: ignore[call-arg]
    with_options.using(queue="x").delay("1")  # type: ignore[arg-type]
    with_options.using(queue="x").delay(number=1, other=2)  # type: ignore[call-arg]


async def refused_on_a_loop() -> None:
    await by_keyword("1")  # type: ignore[arg-type]
    await awaited.adelay("1")  # type: ignore[arg-type]


@task(retries="3")  # type: ignore[call-overload, untyped-decorator]
def wrong_option(cqt: Context) -> None: ...


@task(retires=3)  # type: ignore[call-overload, untyped-decorator]
def unknown_option(cqt: Context) -> None: ...


@task  # type: ignore[arg-type]
def no_context(number: int) -> None: ...

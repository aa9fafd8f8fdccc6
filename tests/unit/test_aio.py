"""The crossing of threads and loops: who may block, what marks a body, which threads stay."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cq.aio import (
    as_task,
    from_sync,
    in_db,
    inside_task,
    joined_loop_thread,
    on_running_loop,
    refuse_on_loop,
)
from cq.errors import RunningLoop


def test_off_a_loop_nothing_is_refused() -> None:
    assert not on_running_loop()
    refuse_on_loop("f()", "'await af()'")


async def test_on_a_loop_the_way_out_is_named() -> None:
    assert on_running_loop()
    with pytest.raises(
        RunningLoop, match=r"^f\(\) was called on a running .* Write 'await af\(\)'"
    ):
        refuse_on_loop("f()", "'await af()'")


async def test_a_thread_beside_the_loop_may_block() -> None:
    assert await in_db(on_running_loop) is False
    await in_db(refuse_on_loop, "f()", "'await af()'")


def test_the_mark_of_a_body_is_as_it_was_behind_it() -> None:
    assert not inside_task()
    with as_task():
        with as_task():
            assert inside_task()
        assert inside_task()
    assert not inside_task()


async def test_the_mark_goes_along_into_threads_and_not_to_neighbours() -> None:
    async def neighbour() -> bool:
        return inside_task()

    async def body() -> tuple[bool, bool]:
        with as_task():
            return inside_task(), await in_db(inside_task)

    assert await asyncio.gather(body(), neighbour()) == [(True, True), False]
    assert not await in_db(inside_task)


def test_the_mark_is_gone_after_a_body_that_raised() -> None:
    with pytest.raises(ZeroDivisionError), as_task():
        _ = 1 / 0
    assert not inside_task()


def test_loop_threads_have_ended_behind_the_block() -> None:
    before = set(threading.enumerate())
    seen: set[threading.Thread] = set()

    async def body(number: int) -> int:
        seen.add(threading.current_thread())
        return number

    with joined_loop_thread():
        assert [from_sync(body)(number) for number in range(3)] == [0, 1, 2]
    assert set(threading.enumerate()) == before
    assert len(seen) == 1

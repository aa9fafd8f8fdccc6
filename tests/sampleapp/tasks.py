"""
Sample tasks, written as a user would: `from cq import task` and nothing else of cq.

They come in families: plain ones, ones that leave evidence, ones that take time, trees,
ones that fail, and ones that report. Tests give them arguments instead of defining their own,
so that a worker process runs the same functions that the test enqueued.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from django.db import connection

from cq import task
from tests.sampleapp.models import Effect, Note


def leave_effect(cqt: Any, kind: str) -> None:
    """Write down that a body was here."""
    Effect.objects.create(task=cqt.id, attempt=cqt.attempt, pid=os.getpid(), kind=kind)


# --- plain --------------------------------------------------------------------------------------


@task
async def noop(cqt):
    """The cheapest async task."""


@task(atomic=False)
def noop_sync(cqt):
    """The cheapest sync task: a thread, no transaction."""


@task
def noop_atomic(cqt):
    """The cheapest atomic task: body and completion in one transaction."""


@task
async def echo(cqt, *args, **kwargs):
    """Return what came in, to see what the row carried."""
    return {"args": list(args), "kwargs": kwargs}


@task(atomic=False)
def add(cqt, first: int, second: int = 0):
    return first + second


@task
async def add_async(cqt, first: int, second: int = 0):
    return first + second


@task(atomic=False)
def where(cqt):
    """The process that ran it."""
    return os.getpid()


@task(atomic=False, pool="process")
def where_in_a_child(cqt):
    """The child process that ran it."""
    return os.getpid()


# --- evidence -----------------------------------------------------------------------------------


@task
def write_effect(cqt, kind: str = "atomic"):
    """Atomic: the effect and the completion are one commit."""
    leave_effect(cqt, kind)


@task(atomic=False)
def write_effect_unsafely(cqt, kind: str = "plain"):
    """Not atomic: the effect commits by itself."""
    leave_effect(cqt, kind)


@task
async def write_effect_async(cqt, kind: str = "async"):
    """An async body that uses the ORM; its effect commits by itself."""
    await Effect.objects.acreate(task=cqt.id, attempt=cqt.attempt, pid=os.getpid(), kind=kind)


@task
async def commit_effect(cqt, kind: str = "commit"):
    """An async body whose last act is one transaction with its completion."""

    def write() -> str:
        leave_effect(cqt, kind)
        return kind

    return await cqt.commit(write)


@task
def write_effect_then_sleep(cqt, seconds: float):
    """Atomic and slow: killed in the middle, it leaves nothing."""
    leave_effect(cqt, "slow")
    time.sleep(seconds)


@task(atomic=False)
def begin_and_end(cqt, seconds: float):
    """Leaves one effect when it starts and one when it ends."""
    leave_effect(cqt, "begin")
    time.sleep(seconds)
    leave_effect(cqt, "end")


@task
async def begin_and_end_async(cqt, seconds: float):
    await Effect.objects.acreate(task=cqt.id, attempt=cqt.attempt, pid=os.getpid(), kind="begin")
    await asyncio.sleep(seconds)
    await Effect.objects.acreate(task=cqt.id, attempt=cqt.attempt, pid=os.getpid(), kind="end")


@task
def take_note(cqt, text: str, unique: str | None = None):
    """Fails with an IntegrityError when the unique value is taken."""
    return Note.objects.create(text=text, unique=unique).pk


# --- time ---------------------------------------------------------------------------------------


@task
async def doze(cqt, seconds: float = 1.0):
    await asyncio.sleep(seconds)


@task(atomic=False)
def doze_sync(cqt, seconds: float = 1.0):
    time.sleep(seconds)


@task
async def query_slowly(cqt, seconds: float = 0.2):
    """An async body that awaits a slow query (PostgreSQL)."""

    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    from asgiref.sync import sync_to_async

    await sync_to_async(query)()


@task(atomic=False, timeout=0.5)
def outstay(cqt, seconds: float = 30.0):
    """A thread that stays past its time limit."""
    time.sleep(seconds)


@task(timeout=0.5)
async def outstay_async(cqt, seconds: float = 30.0):
    await asyncio.sleep(seconds)


@task(atomic=False, pool="process", timeout=2)
def spin(cqt):
    """Never ends by itself, and cannot be asked to."""
    while True:
        pass


# --- trees --------------------------------------------------------------------------------------


@task
async def fan_out(cqt, children: int, seconds: float = 0.0):
    """A parent of so many async children."""
    for _ in range(children):
        cqt.subtask(doze if seconds else noop, *([seconds] if seconds else []))


@task(atomic=False)
def fan_out_sync(cqt, children: int):
    for number in range(children):
        cqt.subtask(add, number, 1)


@task
def fan_out_effects(cqt, children: int):
    """An atomic parent whose children each leave one effect."""
    leave_effect(cqt, "parent")
    for _ in range(children):
        cqt.subtask(write_effect, "child")


@task
async def grow(cqt, levels: int = 3, width: int = 2):
    """A tree: each node has `width` children until `levels` levels stand."""
    cqt.log(f"level {levels}")
    for _ in range(width if levels > 1 else 0):
        cqt.subtask(grow, levels - 1, width)


@task
async def parent_of(cqt, *names: str):
    """A parent with one child per name of a sample task."""
    for name in names:
        cqt.subtask(globals()[name])


@task(atomic=False)
def calc_a(cqt, a: int):
    """The historic example: 1 is taken from the argument."""
    return a - 1


@task(atomic=False)
def add_a_to_4(cqt, a: int, extra: int = 0):
    return a + 4 + extra


@task(atomic=False)
def adopt(cqt, a: int):
    """Return a delayed task: its result becomes this one's."""
    return calc_a.delay(a)


@task(atomic=False)
def return_chain(cqt, a: int):
    return cqt.subtask(calc_a, a).chain(add_a_to_4)


@task(atomic=False)
def note_error(cqt, *args: Any):
    """An errorback: leaves an effect."""
    leave_effect(cqt, "errorback")


# --- failure ------------------------------------------------------------------------------------


@task(atomic=False)
def fail(cqt, message: str = "on purpose"):
    raise ValueError(message)


@task
async def fail_async(cqt, message: str = "on purpose"):
    raise ValueError(message)


@task
def write_and_fail(cqt):
    """Atomic: the effect is rolled back."""
    leave_effect(cqt, "rolled back")
    raise ValueError("after the write")


@task(atomic=False, retries=5, backoff=0)
def flaky(cqt, good_attempt: int):
    """Fails until the given attempt; leaves an effect each time."""
    leave_effect(cqt, "attempt")
    if cqt.attempt < good_attempt:
        raise ConnectionError(f"attempt {cqt.attempt} of {good_attempt}")
    return cqt.attempt


@task(retries=5, backoff=0)
async def flaky_async(cqt, good_attempt: int):
    if cqt.attempt < good_attempt:
        raise ConnectionError(f"attempt {cqt.attempt} of {good_attempt}")
    return cqt.attempt


@task(atomic=False)
def return_the_unwritable(cqt):
    """A result that is not JSON."""
    return object()


@task(atomic=False)
def die(cqt):
    """Take the whole worker process along."""
    os._exit(9)


@task(atomic=False, pool="process")
def die_in_a_child(cqt):
    os._exit(9)


# --- reports ------------------------------------------------------------------------------------


@task
async def log_lines(cqt, count: int, seconds: float = 0.0):
    for number in range(1, count + 1):
        cqt.log(f"line {number}")
        if seconds:
            await asyncio.sleep(seconds)


@task
async def log_in_chorus(cqt, children: int, count: int, seconds: float = 0.0):
    """A parent whose children all write into its one record."""
    for _ in range(children):
        cqt.subtask(log_lines, count, seconds)


@task(atomic=False)
def log_lines_sync(cqt, count: int, seconds: float = 0.0):
    for number in range(1, count + 1):
        cqt.log(f"line {number}")
        if seconds:
            time.sleep(seconds)


@task(atomic=False)
def log_then_trim(cqt, count: int = 100, limit: int = 10):
    """Many unpublished lines, of which a last one keeps a few."""
    for number in range(1, count + 1):
        cqt.log(f"line {number}", publish=False)
    cqt.log("done", limit=limit)


@task
async def report_progress(cqt, total: int, seconds: float = 0.0):
    for done in range(1, total + 1):
        cqt.progress(done, total, f"step {done}")
        await asyncio.sleep(seconds)


@task
async def tell_time(cqt, count: int, seconds: float) -> None:
    """Report progress with the moment of each report, so that a page can tell its age."""
    for number in range(1, count + 1):
        cqt.progress(number, count, f"{time.time():.6f}")
        await asyncio.sleep(seconds)


@task(atomic=False)
def track_items(cqt, items: list[Any]):
    return list(cqt.track(items))

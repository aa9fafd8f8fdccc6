"""
Sample bodies that misbehave: they swallow, block, exit, kill, leak and run too long.

Not a tasks.py, so that only those workers have them that are told so by
`CQ["TASK_MODULES"] = ["tests.sampleapp.trouble"]`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection
from django.utils import timezone, translation

from cq import task
from tests.sampleapp.tasks import leave_effect

MODULE = __name__


# --- what bodies raise --------------------------------------------------------------------------

RAISED = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("many", [KeyboardInterrupt()]),
    "CancelledError": lambda: asyncio.CancelledError(),
    "GeneratorExit": lambda: GeneratorExit(),
    "Unspeakable": lambda: Unspeakable(),
}


class Unspeakable(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@task(atomic=False)
def raise_odd(cqt: Any, name: str) -> None:
    raise RAISED[name]()


@task
def raise_odd_atomic(cqt: Any, name: str) -> None:
    leave_effect(cqt, "rolled back")
    raise RAISED[name]()


@task
async def raise_odd_async(cqt: Any, name: str) -> None:
    raise RAISED[name]()


@task(atomic=False, pool="process")
def raise_odd_in_a_child(cqt: Any, name: str) -> None:
    raise RAISED[name]()


@task
async def cancel_itself(cqt: Any) -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(30)


@task(atomic=False)
def recurse(cqt: Any) -> None:
    recurse.body(cqt)


# --- what cannot be ended -----------------------------------------------------------------------


@task
async def swallow(cqt: Any, seconds: float = 30.0) -> str:
    """Answers no cancellation until its time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        try:
            await asyncio.sleep(end - loop.time())
        except asyncio.CancelledError:
            continue
    return "swallowed"


@task(timeout=0.3)
async def swallow_its_limit(cqt: Any, seconds: float = 30.0) -> str:
    return await swallow.body(cqt, seconds)


@task(atomic=False)
def write_every_moment(cqt: Any, seconds: float = 30.0) -> None:
    """A thread that writes all the time; stops at the first statement that is refused."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        leave_effect(cqt, "moment")
        time.sleep(0.02)


@task(atomic=False, timeout=0.3)
def sleep_in_a_thread(cqt: Any, seconds: float = 30.0) -> None:
    """Past its limit, and deaf to everything."""
    time.sleep(seconds)


@task(timeout=0.5)
def query_too_long(cqt: Any, seconds: float = 30.0) -> None:
    """A thread past its limit inside one statement (PostgreSQL)."""
    leave_effect(cqt, "rolled back")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@task
async def block_the_loop(cqt: Any, seconds: float) -> None:
    time.sleep(seconds)


# --- what takes the process along ---------------------------------------------------------------


@task(atomic=False)
def kill_own_process(cqt: Any) -> None:
    leave_effect(cqt, "killer")
    os.kill(os.getpid(), signal.SIGKILL)


@task
async def exit_hard(cqt: Any) -> None:
    os._exit(7)


@task(atomic=False)
def fault_segment(cqt: Any) -> None:
    ctypes.string_at(0)


@task
def abort_hard(cqt: Any) -> None:
    leave_effect(cqt, "rolled back")
    os.abort()


@task(atomic=False)
def take_all_memory(cqt: Any) -> None:
    held = []
    while True:
        held.append(bytearray(16 * 2**20))


@task
def hold_the_interpreter(cqt: Any, seconds: int) -> None:
    """Atomic: a call into C that never lets go of the interpreter's lock."""
    leave_effect(cqt, "held")
    ctypes.PyDLL(None).sleep(seconds)


@task
def query_for(cqt: Any, seconds: float) -> None:
    """Atomic: one statement of so many seconds (PostgreSQL)."""
    leave_effect(cqt, "rolled back")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@task(atomic=False, pool="process")
def doze_in_a_child(cqt: Any, seconds: float = 30.0) -> int:
    leave_effect(cqt, "begin")
    time.sleep(seconds)
    leave_effect(cqt, "end")
    return os.getpid()


@task(at_most_once=True)
async def run_once(cqt: Any, seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(atomic=False, pool="process")
def print_much(cqt: Any) -> str:
    """What it prints must not be taken for its answer."""
    print("done\n" * 100, flush=True)  # noqa: T201
    return "printed"


@task(atomic=False, pool="process")
def log_in_a_child(cqt: Any, count: int, seconds: float = 0.0) -> None:
    for number in range(1, count + 1):
        cqt.log(f"line {number}")
        time.sleep(seconds)


@task
async def loggers(cqt: Any, children: int, lines: int) -> None:
    """Children that log at the same time into one record."""
    from tests.sampleapp.tasks import log_lines, log_lines_sync

    for number in range(children):
        cqt.subtask(log_lines if number % 2 else log_lines_sync, lines)


# --- evidence without a database ----------------------------------------------------------------


def _note(path: str, cqt: Any) -> None:
    with open(path, "a", encoding="utf-8") as evidence:
        evidence.write(f"{cqt.id} {cqt.attempt} {os.getpid()}\n")


@task
async def note_and_doze(cqt: Any, path: str, seconds: float) -> str:
    """Leaves a line in a file, so that it can be counted while there is no database."""
    _note(path, cqt)
    await asyncio.sleep(seconds)
    return "async"


@task(atomic=False)
def note_and_sleep(cqt: Any, path: str, seconds: float) -> str:
    _note(path, cqt)
    time.sleep(seconds)
    return "thread"


@task(atomic=False, pool="process")
def note_in_a_child(cqt: Any, path: str, seconds: float) -> str:
    _note(path, cqt)
    time.sleep(seconds)
    return "process"


@task
def report_then_sleep(cqt: Any, seconds: float) -> None:
    """Atomic: an effect, lines and progress, before and after a while."""
    leave_effect(cqt, "reported")
    cqt.log("before")
    cqt.progress(1, 2)
    time.sleep(seconds)
    cqt.log("after")
    cqt.progress(2, 2)


@task
async def report_then_doze(cqt: Any, seconds: float) -> None:
    cqt.log("before")
    cqt.progress(1, 2)
    await asyncio.sleep(seconds)
    cqt.log("after")
    cqt.progress(2, 2)


@task
def log_slowly(cqt: Any, count: int, seconds: float) -> list[float]:
    """Atomic, and touches no database itself; returns when it began and ended."""
    began = time.time()
    for number in range(1, count + 1):
        cqt.log(f"line {number}")
        time.sleep(seconds)
    return [began, time.time()]


# --- what a body leaves behind ------------------------------------------------------------------


def _surroundings() -> dict[str, Any]:
    return {
        "language": translation.get_language(),
        "zone": timezone.get_current_timezone_name(),
        "queries": len(connection.queries),
    }


@task(atomic=False)
def change_surroundings(cqt: Any) -> None:
    translation.activate("fr")
    timezone.activate("Asia/Tokyo")


@task
async def change_surroundings_async(cqt: Any) -> None:
    translation.activate("fr")
    timezone.activate("Asia/Tokyo")


@task(atomic=False)
def see_surroundings(cqt: Any) -> dict[str, Any]:
    return _surroundings()


@task
async def see_surroundings_async(cqt: Any) -> dict[str, Any]:
    return _surroundings()


@task(atomic=False)
def cross_to_the_loop(cqt: Any) -> str:
    return async_to_sync(asyncio.sleep)(0.01, "from the loop")


@task
async def cross_to_a_thread(cqt: Any) -> str:
    return await sync_to_async(lambda: "from a thread")()


@task(atomic=False)
def flood(cqt: Any, path: str, count: int) -> int:
    """Waits for a file, then says more than anybody can store; touches no database."""
    while not os.path.exists(path):
        time.sleep(0.02)
    cqt.log("\x00\x1b[31m" + "x" * 10_000_000)
    for number in range(count):
        cqt.log(f"line {number} \x1b[2J\x00")
    Path(f"{path}-done").touch()
    return count


@task
def return_much(cqt: Any, count: int) -> str:
    """Atomic, with an effect; its result may be larger than anybody stores."""
    leave_effect(cqt, "rolled back")
    return "x" * count


@task
async def say(cqt: Any, text: str) -> None:
    cqt.log(text)
    cqt.progress(1, 2, text)

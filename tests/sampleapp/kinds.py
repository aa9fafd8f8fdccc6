"""
Every kind of task, each leaving evidence that it ran; and what each must come to.

Workers have them by `CQ["TASK_MODULES"] = ["tests.sampleapp.kinds"]`. Exactly-once kinds write
their effect in the transaction of their completion; the others may write one per attempt.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import Error

from cq import task
from cq.definition.status import Status
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import leave_effect

MODULE = __name__
CHILDREN = 3
# What a body asks of its database fails in an outage, and that is the body's own failure.
PATIENT: dict[str, Any] = {"retries": 1000, "backoff": 0.2, "retry_exceptions": (Error,)}


async def aleave_effect(cqt: Any, kind: str) -> None:
    """Write down that a body was here."""
    await Effect.objects.acreate(task=cqt.id, attempt=cqt.attempt, pid=os.getpid(), kind=kind)


@task(**PATIENT)
async def async_one(cqt):
    cqt.log("async")
    await aleave_effect(cqt, "async")


@task(**PATIENT)
async def speaking(cqt):
    cqt.log("begun")
    await asyncio.sleep(0.3)
    cqt.log("ended")
    await aleave_effect(cqt, "speaking")


@task(atomic=False, **PATIENT)
def sync_one(cqt):
    cqt.log("sync")
    leave_effect(cqt, "sync")


@task(**PATIENT)
def atomic_one(cqt):
    cqt.log("atomic")
    leave_effect(cqt, "atomic")


@task(**PATIENT)
async def committed_one(cqt):
    await cqt.commit(lambda: leave_effect(cqt, "committed"))


@task(pool="process", **PATIENT)
def child_process_one(cqt):
    leave_effect(cqt, "child process")


@task(**PATIENT)
async def parent(cqt):
    cqt.log("parent")
    for _ in range(CHILDREN):
        cqt.subtask(leaf)


@task(**PATIENT)
def atomic_parent(cqt):
    leave_effect(cqt, "atomic parent")
    for _ in range(CHILDREN):
        cqt.subtask(leaf)


@task(**PATIENT)
def leaf(cqt):
    leave_effect(cqt, "leaf")


@task(atomic=False, **PATIENT)
def head(cqt):
    leave_effect(cqt, "head")
    return 7


@task(**PATIENT)
def tail(cqt, value):
    leave_effect(cqt, f"tail {value}")


@task(retries=1000, backoff=0.2, retry_exceptions=(Error, ConnectionError))
def retrying(cqt):
    leave_effect(cqt, "retrying")
    if cqt.attempt == 1:
        raise ConnectionError("the first try")


@task(atomic=False, **PATIENT)
def failing(cqt):
    leave_effect(cqt, "failing")
    raise ValueError("on purpose")


def note_failure(failed: Any, error: str) -> None:
    """An errorback: counted at the task that failed."""
    Effect.objects.create(task=failed.id, attempt=0, pid=os.getpid(), kind=f"told: {error}")


@task(**PATIENT)
def ticking(cqt):
    leave_effect(cqt, "ticking")


@task(**PATIENT)
async def revoked_parent(cqt):
    for _ in range(CHILDREN):
        cqt.subtask(revoked_leaf)


@task(**PATIENT)
async def revoked_leaf(cqt):
    await asyncio.sleep(60)


@task(**PATIENT)
async def dozing(cqt, seconds: float):
    await asyncio.sleep(seconds)
    await aleave_effect(cqt, "dozing")


@task(**PATIENT)
def dozing_atomic(cqt, seconds: float):
    leave_effect(cqt, "dozing atomic")
    time.sleep(seconds)


@task(**PATIENT)
async def lingering(cqt, path: str):
    """Ends when there is such a file, however long a test takes to get there."""
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.02)
    await aleave_effect(cqt, "lingering")


@task(**PATIENT)
def lingering_atomic(cqt, path: str):
    leave_effect(cqt, "lingering atomic")
    while not os.path.exists(path):
        time.sleep(0.02)


def _note(path: str, cqt: Any) -> None:
    with open(f"{path}-notes", "a", encoding="utf-8") as notes:
        notes.write(f"{os.getpid()} {cqt.id} {cqt.attempt}\n")


@task(**PATIENT)
def lingering_parent(cqt, path: str):
    """Atomic, with children; notes beside the file that it waits, and that it came to its end."""
    leave_effect(cqt, "lingering parent")
    for _ in range(CHILDREN):
        cqt.subtask(leaf)
    _note(f"{path}-awaited", cqt)
    while not os.path.exists(path):
        time.sleep(0.02)
    _note(path, cqt)


@task(**PATIENT)
async def lingering_parent_async(cqt, path: str):
    """The same on the loop; a cancellation does not keep it from its end."""
    for _ in range(CHILDREN):
        cqt.subtask(leaf)
    _note(f"{path}-awaited", cqt)
    while not os.path.exists(path):  # noqa: ASYNC240
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
    _note(path, cqt)


@task(**PATIENT)
async def bush(cqt, branches: int):
    """A tree of four times as many tasks and one, each with a transaction of its own."""
    for _ in range(branches):
        cqt.subtask(atomic_parent)


@dataclass(frozen=True, slots=True)
class Expected:
    """How tasks of one function end, and how many effects each leaves; None: one or more."""

    status: Status = Status.SUCCESS
    effects: int | None = None
    children: int = 0


EXPECTED = {
    function.name: expected
    for function, expected in (
        (async_one, Expected()),
        (speaking, Expected()),
        (sync_one, Expected()),
        (atomic_one, Expected(effects=1)),
        (committed_one, Expected(effects=1)),
        (child_process_one, Expected(effects=1)),
        (parent, Expected(effects=0, children=CHILDREN)),
        (atomic_parent, Expected(effects=1, children=CHILDREN)),
        (leaf, Expected(effects=1)),
        (head, Expected()),
        (tail, Expected(effects=1)),
        (retrying, Expected(effects=1)),
        (failing, Expected(status=Status.FAILURE)),
        (ticking, Expected(effects=1)),
        (revoked_parent, Expected(status=Status.REVOKED, effects=0, children=CHILDREN)),
        (revoked_leaf, Expected(status=Status.REVOKED, effects=0)),
        (dozing, Expected()),
        (dozing_atomic, Expected(effects=1)),
        (lingering, Expected()),
        (lingering_atomic, Expected(effects=1)),
        (lingering_parent, Expected(effects=1, children=CHILDREN)),
        (lingering_parent_async, Expected(effects=0, children=CHILDREN)),
    )
}


def _chain() -> Any:
    first = head.delay()
    first.chain(tail)
    return first


def _failing() -> Any:
    one = failing.delay()
    one.errorback(note_failure)
    return one


ENQUEUE: dict[str, Callable[[], Any]] = {
    "async": async_one.delay,
    "speaking": speaking.delay,
    "sync": sync_one.delay,
    "atomic": atomic_one.delay,
    "committed": committed_one.delay,
    "child process": child_process_one.delay,
    "parent": parent.delay,
    "atomic parent": atomic_parent.delay,
    "chain": _chain,
    "retrying": retrying.delay,
    "errorback": _failing,
}
"""One call for each kind of task that somebody enqueues."""

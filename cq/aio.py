"""
The one crossing between synchronous and asynchronous code.

Django's ORM and transactions are synchronous, so the logic above is written once, in
plain functions; this room runs them on threads. Django binds a connection to a thread:
a `Lane` is one thread that keeps one session, and async tasks share a few of them, so
that a slow query of one task stalls nobody on another lane.
"""

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import asgiref.sync
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import Error, connections

from cq.errors import RunningLoop

IDLE_SECONDS = 1.0
_CLOSE_SECONDS = 1.0

P = ParamSpec("P")
T = TypeVar("T")


async def in_db(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Run a synchronous function that uses the ORM, on the thread of the current context.

    In a request that is the request's own thread, in an async task its lane: the function
    sees the transaction that the caller is in.
    """
    return await sync_to_async(fn, thread_sensitive=True)(*args, **kwargs)


async def in_thread(
    executor: ThreadPoolExecutor, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a synchronous function on a pool; `async_to_sync` inside finds the calling loop."""
    return await sync_to_async(fn, thread_sensitive=False, executor=executor)(*args, **kwargs)


def from_sync(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make an async function callable from synchronous code."""
    return async_to_sync(fn)


@contextmanager
def joined_loop_thread() -> Iterator[None]:
    """Run every `from_sync` of the block on one thread, which has ended when the block has."""
    # An asgiref from before 3.9 has no such context; there the threads end a little later.
    with getattr(asgiref.sync, "AsyncSingleThreadContext", nullcontext)():
        yield


def mark_async(function: Callable[..., object]) -> None:
    """Let everybody see that calling this object gives a coroutine."""
    asgiref.sync.markcoroutinefunction(function)


def on_running_loop() -> bool:
    """Whether this thread is running an event loop right now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_on_loop(called: str, instead: str) -> None:
    """Raise RunningLoop, which names what to write instead, on the thread of a running loop."""
    if on_running_loop():
        raise RunningLoop(
            f"{called} was called on a running event loop, which it would block. "
            f"Write {instead} instead."
        )


class Lane:
    """
    One thread with one database session, for the code that is bound to it.

    With `owns_session` it takes none from the project's connection pool.
    """

    def __init__(self, name: str, *, owns_session: bool = False) -> None:
        self.executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix=name,
            initializer=own_sessions if owns_session else None,
        )
        self._context = ThreadSensitiveContext()
        SyncToAsync.context_to_thread_executor[self._context] = self.executor
        self.bound = 0
        self.losses = 0

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the lane, one after the other; a broken session is closed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: _tended(fn, *args, **kwargs))

    def bind(self) -> None:
        """Send every thread-sensitive call of the current context to this lane."""
        SyncToAsync.thread_sensitive_context.set(self._context)

    def close(self) -> None:
        """Close the session and end the thread, once what is queued has run."""
        self.executor.submit(connections.close_all)
        self.executor.shutdown(wait=False)


class Lanes:
    """A few lanes, handed out to whoever runs next: the least bound one first."""

    def __init__(self, count: int, name: str) -> None:
        self._lanes = [Lane(f"{name}-{number}") for number in range(count)]

    @contextmanager
    def bound(self) -> Iterator[Lane]:
        """Bind the current context to a lane while the block runs."""
        lane = min(self._lanes, key=lambda candidate: candidate.bound)
        if _has_session(lane) and (not lane.bound or lane.losses != _seen_losses):
            lane.executor.submit(tend_sessions)
        lane.losses = _seen_losses
        lane.bound += 1
        lane.bind()
        broken = False
        try:
            yield lane
        except Error:
            broken = True
            raise
        finally:
            lane.bound -= 1
            if (broken or not lane.bound) and _has_session(lane):
                lane.executor.submit(tend_sessions)

    def close(self) -> None:
        """Close every lane."""
        for lane in self._lanes:
            lane.close()


def _has_session(lane: Lane) -> bool:
    # A ThreadPoolExecutor starts its thread on first use: no thread, no session to close.
    return bool(lane.executor._threads)


def _tended(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return fn(*args, **kwargs)
    except Error:
        tend_sessions()
        raise


class _Sessions(threading.local):
    """When the sessions of a thread were last tended, and after how many losses."""

    tended = -math.inf
    losses = 0


_sessions = _Sessions()
_losses = itertools.count(1)
_seen_losses = 0


def tend_sessions() -> None:
    """
    Close those sessions of the calling thread that are broken or too old; keep the others.

    CONN_MAX_AGE counts where it is set. Its default of 0 closes after each request in a
    web process; a worker's sessions are few and known, and are kept instead. One that was
    idle for a while, or that may have broken with others of this process, proves itself
    before its next statement.
    """
    global _seen_losses
    now = time.monotonic()
    is_doubtful = now - _sessions.tended > IDLE_SECONDS or _sessions.losses != _seen_losses
    connection: Any  # the stubs know nothing of health checks
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue
        if getattr(connection, "pool", None):
            connection.close()  # back into the pool
            continue
        if not connection.settings_dict["CONN_MAX_AGE"]:
            connection.close_at = None
        was_open = connection.connection is not None
        is_unproven = connection.health_check_enabled and not connection.health_check_done
        connection.close_if_unusable_or_obsolete()
        if was_open and connection.connection is None and connection.errors_occurred:
            _seen_losses = next(_losses)
        is_checked = connection.settings_dict["CONN_HEALTH_CHECKS"]
        connection.health_check_enabled = is_checked or is_doubtful or is_unproven
    _sessions.tended, _sessions.losses = now, _seen_losses


@contextmanager
def kept_sessions() -> Iterator[None]:
    """Tend the sessions of the calling thread before and after the block."""
    tend_sessions()
    try:
        yield
    finally:
        tend_sessions()


def end_threads(pool: ThreadPoolExecutor, *, stuck: int) -> None:
    """
    End the threads of a pool and their sessions, but for so many that are stuck in a call.

    Each idle thread takes one closing: it holds on to it until all the others have theirs.
    """
    idle = len(pool._threads) - stuck
    if idle > 0:
        together = threading.Barrier(idle)
        for _ in range(idle):
            pool.submit(_close_sessions, together)
    pool.shutdown(wait=False)


def _close_sessions(together: threading.Barrier) -> None:
    connections.close_all()
    with suppress(threading.BrokenBarrierError):
        together.wait(_CLOSE_SECONDS)


def own_sessions() -> None:
    """Let the calling thread open sessions beside the project's connection pool."""
    for connection in connections.all():
        options = dict(connection.settings_dict.get("OPTIONS", {}))
        if options.pop("pool", None):
            connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}


_in_task: ContextVar[bool] = ContextVar("cq_in_task", default=False)


def inside_task() -> bool:
    """Whether the current context is the body of a running task."""
    return _in_task.get()


@contextmanager
def as_task() -> Iterator[None]:
    """Mark the current context as the body of a running task while the block runs."""
    was = _in_task.get()
    _in_task.set(True)
    try:
        yield
    finally:
        # Not by a token: asgiref carries the variable from thread to thread.
        _in_task.set(was)

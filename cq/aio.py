"""
The one crossing between synchronous and asynchronous code.

Django's ORM and transactions are synchronous, so the logic above is written once, in
plain functions; this room runs them on threads. Django binds a connection to a thread:
a `Lane` is one thread that keeps one session, and async tasks share a few of them, so
that a slow query of one task stalls nobody on another lane.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")


async def in_db(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Run a synchronous function that uses the ORM, on the thread of the current context.

    In a request that is the request's own thread, in an async task its lane: the function
    sees the transaction that the caller is in.
    """
    return await sync_to_async(fn, thread_sensitive=True)(*args, **kwargs)


async def in_thread(executor: Executor, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function on a pool; `async_to_sync` inside finds the calling loop."""
    return await sync_to_async(
        fn,
        thread_sensitive=False,
        executor=executor,  # type: ignore[arg-type]
    )(*args, **kwargs)


def from_sync(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make an async function callable from synchronous code."""
    return async_to_sync(fn)


def on_running_loop() -> bool:
    """Whether this thread is running an event loop right now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Lane:
    """One thread with one database session, for the code that is bound to it."""

    def __init__(self, name: str) -> None:
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._context = ThreadSensitiveContext()
        SyncToAsync.context_to_thread_executor[self._context] = self.executor
        self.bound = 0
        self.used = False

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the lane, one after the other."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: fn(*args, **kwargs))

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
        lane.bound += 1
        lane.bind()
        try:
            yield lane
        finally:
            lane.bound -= 1
            if not lane.bound and _has_session(lane):
                lane.executor.submit(close_old_connections)

    def close(self) -> None:
        """Close every lane."""
        for lane in self._lanes:
            lane.close()


def _has_session(lane: Lane) -> bool:
    # A ThreadPoolExecutor starts its thread on first use: no thread, no session to close.
    return bool(lane.executor._threads)


_in_task: ContextVar[bool] = ContextVar("cq_in_task", default=False)


def enter_task() -> None:
    """Mark the current context as the body of a running task."""
    _in_task.set(True)


def leave_task() -> None:
    """Unmark it."""
    _in_task.set(False)


def inside_task() -> bool:
    """Whether the current context is the body of a running task."""
    return _in_task.get()


AnyCallable = Callable[..., Any]

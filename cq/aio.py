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
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar

import asgiref.sync
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import Error, connections

from cq.errors import RunningLoop

IDLE_SECONDS = 1.0

P = ParamSpec("P")
T = TypeVar("T")


async def in_db(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Run a synchronous function that uses the ORM, on the thread of the current context.

    In a request that is the request's own thread, in an async task its lane: the function
    sees the transaction that the caller is in.
    """
    # Bound here: asgiref's own call has parameters of its own, such as self.
    return await sync_to_async(partial(fn, *args, **kwargs), thread_sensitive=True)()


async def in_thread(executor: Executor, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function on a pool; `async_to_sync` inside finds the calling loop."""
    threads: Any = executor  # asgiref asks for a ThreadPoolExecutor and needs an Executor
    return await sync_to_async(fn, thread_sensitive=False, executor=threads)(*args, **kwargs)


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


class Threads(Executor):
    """
    A pool of threads that keep their database sessions, and close them when they end.

    Not a ThreadPoolExecutor, whose threads hold up the end of the process: a body that
    cannot be stopped would hang a reload, or a Ctrl-C, for as long as it likes.
    """

    def __init__(self, size: int, name: str, begin: Callable[[], object] | None = None) -> None:
        self._size, self._name, self._begin = size, name, begin
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._is_shut = False

    @property
    def has_threads(self) -> bool:
        """Whether a thread was started, and may have opened a session."""
        return bool(self._threads)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a call made; the threads start when they are first needed."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError(f"The threads {self._name!r} were ended; nothing runs on them.")
            self._calls.put((future, partial(fn, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
                name = f"{self._name}-{len(self._threads) + 1}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End each thread when it is idle and everything is done; waits for none."""
        with self._lock:
            if not self._is_shut:
                self._is_shut = True
                for _ in self._threads:
                    self._calls.put(None)

    def join(self, deadline: float) -> None:
        """Wait until the threads have closed their sessions, at most to this `time.monotonic()`."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        if self._begin is not None:
            self._begin()
        while (call := self._next()) is not None:
            future, fn = call
            if future.set_running_or_notify_cancel():
                _fulfil(future, fn)
            # Held no longer than the call: a result may be large.
            del call, future, fn
        connections.close_all()

    def _next(self) -> "_Call | None":
        try:
            return self._calls.get_nowait()
        except queue.Empty:
            self._idle.release()
            return self._calls.get()


_Call = tuple["Future[Any]", Callable[[], Any]]


def _fulfil(future: "Future[Any]", fn: Callable[[], Any]) -> None:
    try:
        future.set_result(fn())
    except BaseException as problem:  # noqa: BLE001 - it is the caller's, whatever it is
        future.set_exception(problem)


class Lane:
    """
    One thread with one database session, for the code that is bound to it.

    `begin` is called first on its thread.
    """

    def __init__(self, name: str, begin: Callable[[], object] | None = None) -> None:
        self.executor = Threads(1, name, begin)
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
        self.executor.shutdown(wait=False)


class Lanes:
    """A few lanes, handed out to whoever runs next: the least bound one first."""

    def __init__(self, count: int, name: str) -> None:
        self._lanes = [Lane(f"{name}-{number}") for number in range(count)]

    @contextmanager
    def bound(self) -> Iterator[Lane]:
        """Bind the current context to a lane while the block runs."""
        lane = min(self._lanes, key=lambda candidate: candidate.bound)
        if lane.executor.has_threads and (not lane.bound or lane.losses != _seen_losses):
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
            if (broken or not lane.bound) and lane.executor.has_threads:
                lane.executor.submit(tend_sessions)

    def close(self) -> None:
        """Close every lane."""
        for lane in self._lanes:
            lane.close()

    def join(self, deadline: float) -> None:
        """Wait until every lane has closed its session, at most to this `time.monotonic()`."""
        for lane in self._lanes:
            lane.executor.join(deadline)


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

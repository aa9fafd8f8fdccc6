"""
The worker inside the web process: SQLite, no services, one command.

It runs on the web server's own loop and is rung without any layer. Started and stopped by
the lifespan of uvicorn, hypercorn and granian, and with the reactor of daphne, which has no
lifespan; drained for a short while so that the last frames still reach the sockets.
"""

import asyncio
import contextvars
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from django.db import Error

from cq import conf
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner

logger = logging.getLogger("cq.worker")

LINGER = 0.3
EMBEDDED_GRACE = 1.0
_RETRY_SECONDS = 1.0

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class EmbeddedWorker:
    """One worker on the loop of the server; safe to ask for from every scope."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._runner: Runner | None = None
        self._stopping = threading.Event()

    def ensure_started(self) -> None:
        """Start the worker on the running loop unless it runs already, or was stopped on it."""
        loop = asyncio.get_running_loop()
        with self._lock:
            is_running = self._task is not None and not self._task.done()
            if self._loop is loop and (is_running or self._stopping.is_set()):
                return
            self._loop = loop
            self._stopping.clear()
            # Owned here, ended by stop(): a server gives an application no task group.
            # In a context of its own: the request that comes first lends it nothing.
            self._task = loop.create_task(
                self._run(), name="cq embedded worker", context=contextvars.Context()
            )

    def withhold(self) -> None:
        """Let no scope of the running loop start the worker: the loop serves one question."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._stopping.set()

    async def _run(self) -> None:
        options = WorkerOptions.from_settings(grace=EMBEDDED_GRACE, embedded=True)
        is_waiting = False
        while not self._stopping.is_set():
            self._runner = Runner(options)
            try:
                await self._runner.run()
                is_waiting = False
            except Error as problem:
                if not is_waiting:
                    logger.warning("The embedded worker waits for the database: %s", problem)
                is_waiting = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def stop(self, *, at_once: bool = False) -> None:
        """
        Drain and end; what still runs is handed back. Leaves time for the last frames.

        With `at_once` nothing that runs is waited for, nor any frame.
        """
        self._stopping.set()
        if self._runner is None or self._task is None or self._task.done():
            return
        if at_once:
            self._runner.force()
        else:
            self._runner.stop()
        await asyncio.wait([self._task], timeout=EMBEDDED_GRACE + 2)
        if not at_once:
            await asyncio.sleep(LINGER)

    def stop_from_thread(self, *, at_once: bool = False) -> None:
        """Stop it from a thread that is not its loop's, and wait until it has ended."""
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        stopped = asyncio.run_coroutine_threadsafe(self.stop(at_once=at_once), loop)
        with suppress(TimeoutError):
            stopped.result(EMBEDDED_GRACE + 2 + LINGER + 1)


embedded_worker = EmbeddedWorker()


def with_worker(application: Application) -> Application:
    """
    Host a worker beside an ASGI application, when CQ["EMBEDDED"] is on (by default DEBUG).

    Answers the lifespan protocol, where the server speaks it, and passes everything else
    on. Under daphne and its runserver the worker starts and ends with the server as well.
    """
    _follow_daphne()

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if not conf.current().embedded:
            await application(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        embedded_worker.ensure_started()
        await application(scope, receive, send)

    return wrapped


def _follow_daphne() -> None:
    """Start the worker with the reactor of this process, if daphne is its server, and stop it."""
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is None or "daphne.server" not in sys.modules:
        return

    def start() -> None:
        if conf.current().embedded:
            embedded_worker.ensure_started()

    def stop() -> Any:
        # The reactor goes on until this has been done.
        loop = asyncio.get_running_loop()
        stopping = loop.create_task(embedded_worker.stop(), name="cq shutdown")
        return sys.modules["twisted.internet.defer"].Deferred.fromFuture(stopping)

    def begin() -> None:
        reactor.addSystemEventTrigger("before", "shutdown", stop)
        reactor.callLater(0, start)  # on the loop, which does not turn yet

    reactor.callWhenRunning(begin)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            embedded_worker.ensure_started()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await embedded_worker.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


def stop_on_signal(stop_server: Callable[[], object]) -> None:
    """
    Drain the worker at TERM or INT, then call `stop_server`; called on the server's loop.

    For daphne started with `signal_handlers=False`.
    """
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    async def end() -> None:
        await embedded_worker.stop()
        stop_server()

    def begin() -> None:
        if not stopping:
            stopping.append(loop.create_task(end(), name="cq shutdown"))

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, begin)
        except NotImplementedError:  # Windows: no loop has them there
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin))

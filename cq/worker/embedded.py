"""
The worker inside the web process: SQLite, no services, one command.

It runs on the web server's own loop and is rung without any layer. Started by the ASGI
application when the first scope arrives (daphne has no lifespan), or by the lifespan of
uvicorn, hypercorn and granian; stopped with the server, draining for a short while so
that the last frames still reach the sockets.
"""

import asyncio
import contextvars
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
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

    async def stop(self) -> None:
        """Drain and end; what still runs is handed back. Leaves time for the last frames."""
        self._stopping.set()
        if self._runner is None or self._task is None:
            return
        self._runner.stop()
        await asyncio.wait([self._task], timeout=EMBEDDED_GRACE + 2)
        await asyncio.sleep(LINGER)


embedded_worker = EmbeddedWorker()


def with_worker(application: Application) -> Application:
    """
    Host a worker beside an ASGI application, when CQ["EMBEDDED"] is on (by default DEBUG).

    Answers the lifespan protocol, where the server speaks it, and passes everything else
    on; under daphne and runserver the worker starts with the first connection.
    """

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

    for name in ("SIGTERM", "SIGINT"):
        loop.add_signal_handler(getattr(signal, name), begin)

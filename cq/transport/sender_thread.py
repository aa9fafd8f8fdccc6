"""
The daemon thread that runs the senders, with an event loop of its own.

It is started by the first bell or event of a process, survives every error of a layer,
and is abandoned, never touched, by a forked child.
"""

import asyncio
import logging
import selectors
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cq.transport.sender import BellSender, GroupSender

logger = logging.getLogger("cq.transport")


class _Selector(selectors.DefaultSelector):
    """A selector that a forked child can let go of without disturbing its parent."""

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        # Closed, the stock one answers None, and transports that Python finalises in the
        # child would fail on it.
        return super().get_map() or {}


class _Loop(asyncio.SelectorEventLoop):
    """
    The loop of the sending thread.

    Names are resolved in place: this thread serves nobody else, and at interpreter exit,
    when the last bells leave, an executor may no longer start the thread it would use.
    """

    def __init__(self) -> None:
        self.own_selector = _Selector()
        super().__init__(self.own_selector)

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class SenderThread:
    """One thread for the process; None stands for a layer that nothing is sent to."""

    def __init__(self, task_layer: str | None, browser_layer: str | None) -> None:
        self._loop = _Loop()
        self._stop = asyncio.Event()
        self.bells = BellSender(task_layer, self._loop) if task_layer else None
        self.events = GroupSender(browser_layer, self._loop) if browser_layer else None
        self._thread = threading.Thread(target=self._main, name="cq-dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread; raises RuntimeError where none can be started."""
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise

    def stop(self) -> None:
        """Tell the thread to end, sending no more."""
        with suppress(RuntimeError):  # the loop is closed: it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, so long at most."""
        self._thread.join(timeout)

    def abandon(self) -> None:
        """
        Let go of the parent's loop in a forked child, closing nothing the parent uses.

        The epoll set is shared across a fork: unregistering a socket here would deafen the
        parent, so the child's copy of the set is closed first.
        """
        self._loop.own_selector.close()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception:
            logger.exception("The dispatcher ended; the next bell starts a new one.")

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            senders = [sender for sender in (self.bells, self.events) if sender]
            tasks = [group.create_task(sender.run()) for sender in senders]
            await self._stop.wait()
            for sender, task in zip(senders, tasks, strict=True):
                sender.stopping = True
                task.cancel()

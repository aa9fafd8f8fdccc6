"""
A wire: a TCP proxy between a browser and a web process, which a test may cut or block.

`cut()` ends every WebSocket under way as a lost network does, without a goodbye; `hold()`
stops what the server sends, as a reader that stopped reading does, until `release()`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
CHUNK = 65536


class Wire:
    """One proxied port, served by a thread with a loop of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: set[asyncio.StreamWriter] = set()
        self._sockets: set[asyncio.StreamWriter] = set()
        self._pairs: set[asyncio.Task[object]] = set()
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listening.result(10)}"

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over, self._flows = asyncio.Event(), asyncio.Event()
        self._flows.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._listening.set_result(server.sockets[0].getsockname()[1])
        await self._over.wait()
        server.close()
        self._flows.set()
        for writer in self._ends:
            writer.transport.abort()
        if self._pairs:
            await asyncio.wait(self._pairs)

    @property
    def sockets(self) -> int:
        """How many WebSockets are open."""
        return len(self._sockets)

    def cut(self) -> int:
        """End every WebSocket; returns how many there were."""
        return self._call(self._abort)

    def hold(self) -> None:
        """Let nothing more through to the browser."""
        self._call(self._flows.clear)

    def release(self) -> None:
        """Let everything through again, what has piled up first."""
        self._call(self._flows.set)

    def close(self) -> None:
        """End the proxy and every connection."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _call(self, fn: Callable[[], T]) -> T:
        async def call() -> T:
            return fn()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _abort(self) -> int:
        sockets, self._sockets = self._sockets, set()
        for writer in sockets:
            writer.transport.abort()
        return len(sockets) // 2

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs.add(pair)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            ends = {writer, to_server}
            self._ends |= ends
            if b"upgrade: websocket" in head.lower():
                self._sockets |= ends
            to_server.write(head)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, to_server))
                tasks.create_task(_pump(from_server, writer, self._flows))
            self._ends -= ends
            self._sockets -= ends
        writer.close()
        self._pairs.discard(pair)


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event | None = None
) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            if flows is not None:
                await flows.wait()
            sink.write(data)
            await sink.drain()
    sink.close()

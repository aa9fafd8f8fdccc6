"""
Links: a TCP proxy between a worker and one of its servers, which goes wrong on demand.

`Link(host, port)` listens on a port of its own and passes bytes on both ways. It delays,
trickles, stalls (nothing gets through and nobody is told, as behind a dead switch), refuses,
resets, and cuts connections after so many bytes. Each wrong is counted, so that a test can
prove that it bit. The proxy runs on a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")
CHUNK = 65536


@dataclass(slots=True)
class Wrong:
    """What is wrong with a link; nothing by default."""

    delay: float = 0.0
    trickle: float = 0.0
    stalled: bool = False
    deaf: bool = False
    refusing: bool = False
    cut_after: int | None = None


@dataclass(slots=True, eq=False)
class Pipe:
    """One connection through the link: its two ends, and how many bytes have passed."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    passed: int = 0

    def reset(self) -> None:
        """End both sides with a RST, as a machine that lost its memory would."""
        for writer in (self.near, self.far):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Link:
    """A proxy to one server. `bites` counts what went wrong on it, by kind."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._wrong = Wrong()
        self._healed = asyncio.Event()
        self._pipes: set[Pipe] = set()
        self.bites: Counter[str] = Counter()
        self.port = 0
        is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(is_up,), daemon=True)
        self._thread.start()
        is_up.wait(10)

    @classmethod
    def to(cls, url: str) -> Link:
        """A link to the server of an address."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 0)

    def through(self, url: str) -> str:
        """The address, by way of this link."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        where = f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=f"{user}@{where}" if user else where))

    # --- what goes wrong --------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Pass everything on so much later."""
        self._set(Wrong(delay=seconds))

    def trickle(self, seconds: float = 0.0005) -> None:
        """Pass on one byte at a time."""
        self._set(Wrong(trickle=seconds))

    def stall(self) -> None:
        """Hold back everything until healed, without a word to anybody: a black hole."""
        self._set(Wrong(stalled=True))

    def hold_answers(self) -> None:
        """Stall one direction: what is asked arrives, and no answer comes back."""
        self._set(Wrong(deaf=True))

    def refuse(self) -> None:
        """Drop new connections, and reset those that are open."""
        self._set(Wrong(refusing=True))
        self.reset()

    def cut_after(self, count: int) -> None:
        """Reset each connection after so many more bytes."""
        self._set(Wrong(cut_after=count))

    def reset(self) -> int:
        """Reset every connection that is open now; return how many."""
        return self._ask(self._reset)

    def heal(self) -> None:
        """Be a wire again; what was held back is passed on."""
        self._set(Wrong())

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._pipes)

    def close(self) -> None:
        """End the proxy and every connection through it."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    # --- on the loop ------------------------------------------------------------------------

    def _run(self, is_up: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main(is_up))

    async def _main(self, is_up: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        is_up.set()
        await self._stop.wait()
        server.close()
        self._healed.set()
        self._reset()

    def _ask(self, call: Callable[[], T]) -> T:
        async def asked() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result(10)

    def _set(self, wrong: Wrong) -> None:
        def change() -> None:
            self._wrong = wrong
            for pipe in self._pipes:
                pipe.passed = 0
            # Whoever waits looks anew, at what is wrong now.
            self._healed.set()
            self._healed = asyncio.Event()

        self._ask(change)

    def _reset(self) -> int:
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.reset()
        self.bites["reset"] += len(pipes)
        return len(pipes)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._wrong.refusing:
            self.bites["refused"] += 1
            writer.transport.abort()
            return
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
        except OSError:  # the server itself is down
            writer.transport.abort()
            return
        pipe = Pipe(writer, far)
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, far, pipe, is_answer=False))
                group.create_task(self._forward(far_reader, writer, pipe, is_answer=True))
        finally:
            self._pipes.discard(pipe)
            for end in (writer, far):
                end.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pipe: Pipe,
        *,
        is_answer: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                while self._wrong.stalled or (is_answer and self._wrong.deaf):
                    self.bites["held"] += len(data)
                    await self._healed.wait()
                await self._pass(data, writer, pipe)
            if writer.can_write_eof():
                writer.write_eof()
            await writer.drain()
        # One end has gone, so the other one has nobody to talk to.
        for end in (pipe.near, pipe.far):
            end.close()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, pipe: Pipe) -> None:
        wrong = self._wrong
        if wrong.delay:
            self.bites["delayed"] += len(data)
            await self._pause(wrong.delay)
        if wrong.cut_after is not None and pipe.passed + len(data) > wrong.cut_after:
            writer.write(data[: max(0, wrong.cut_after - pipe.passed)])
            await writer.drain()
            self.bites["cut"] += 1
            pipe.reset()
            raise ConnectionResetError("cut")
        pipe.passed += len(data)
        while data and self._wrong.trickle:
            self.bites["trickled"] += 1
            writer.write(data[:1])
            await writer.drain()
            data = data[1:]
            await self._pause(wrong.trickle)
        if data:
            writer.write(data)
            await writer.drain()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._healed.wait()


def bites_of(*links: Link) -> dict[str, Any]:
    """What went wrong on some links, added up."""
    return dict(sum((link.bites for link in links), Counter()))

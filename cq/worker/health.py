"""
Two questions a process manager may ask over HTTP: `/livez` and `/readyz`.

Alive means that the claim loop turned recently; it never depends on a database or a
layer, or an outage there would restart every worker. Ready means that it claims. Both
cost the same for any backlog; every other path is 404, and nothing about tasks is told.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from cq.errors import InvalidOption
from cq.worker.child import child_number

MAX_HEAD = 4096
READ_TIMEOUT = 5.0
SILENCE = 60.0

Answer = tuple[bool, str]


class HealthProbe:
    """What the worker tells of itself; `tick()` and `drain()` are called on its loop."""

    def __init__(
        self,
        ready: Callable[[], Answer] = lambda: (True, "claiming"),
        *,
        silence: float = SILENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready = ready
        self._silence = silence
        self._clock = clock
        self._ticked = clock()
        self._draining = False

    def tick(self) -> None:
        """Note a turn of the claim loop, whether or not its database answered."""
        self._ticked = self._clock()

    def drain(self) -> None:
        """Be ready no more: the worker ends what runs and claims nothing."""
        self._draining = True

    def live(self) -> Answer:
        """Whether the claim loop turned recently."""
        quiet = self._clock() - self._ticked
        if quiet > self._silence:
            return False, f"the claim loop last turned {quiet:.0f} s ago"
        return True, "alive"

    def ready(self) -> Answer:
        """Whether the worker takes tasks, and if not, why."""
        if self._draining:
            return False, "draining"
        return self._ready()


def parse_address(text: str) -> tuple[str, int]:
    """Read `host:port`, `[::1]:port` or `:port` (every interface)."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidOption(
            f"{text!r} is not an address to answer health probes on. Expected host:port, "
            "for example 0.0.0.0:8001. Correct --health.",
            address=text,
        )
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


async def serve(
    host: str, port: int, probe: HealthProbe, on_bound: Callable[[int], object] | None = None
) -> None:
    """
    Answer probes until cancelled; `on_bound` learns the port, which for 0 is any free one.

    Of several processes under a supervisor, each answers on the next port. Raises
    InvalidOption when the address cannot be used.
    """
    if port:
        port += child_number()

    open_writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        # A prober that talks nonsense, hangs or hangs up is its own problem.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(READ_TIMEOUT):
                writer.write(await _respond(reader, probe))
                await writer.drain()
        open_writers.discard(writer)
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=MAX_HEAD)
    except OSError as error:
        raise InvalidOption(
            f"Health probes cannot be answered on {host}:{port}: {error.strerror or error}. "
            "Expected a free port of this host. Choose another for --health.",
            host=host,
            port=port,
        ) from error
    try:
        if on_bound is not None:
            on_bound(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()
    finally:
        server.close()
        for writer in open_writers:  # the end of the worker waits for no prober
            writer.transport.abort()
        await server.wait_closed()


async def _respond(reader: asyncio.StreamReader, probe: HealthProbe) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _response(431, "the request is too long")
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    questions = {"/livez": probe.live, "/readyz": probe.ready}
    if method not in ("GET", "HEAD") or path not in questions:
        return _response(404, "not found; ask /livez or /readyz", body=method != "HEAD")
    good, reason = questions[path]()
    return _response(200 if good else 503, reason, body=method != "HEAD")


def _response(status: int, reason: str, *, body: bool = True) -> bytes:
    words = {200: "OK", 404: "Not Found", 431: "Request Header Fields Too Large"}
    content = f"{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status} {words.get(status, 'Service Unavailable')}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")

"""
One short conversation over the live socket: with a server, or with the application itself.

Enters: an address or an ASGI application, the id of a task and a token for it. Leaves: the
first frame the socket answers with, or SocketFailure with one sentence. The client speaks
just enough of RFC 6455 for that: a handshake, text frames, and nothing that is compressed.
"""

import asyncio
import base64
import hashlib
import json
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from cq.terminal.text import one_line
from cq.web.protocol import SUBPROTOCOL

PATH = "/cq/ws"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_LARGEST = 1 << 20

Application = Callable[..., Awaitable[None]]
Frame = dict[str, Any]


class SocketFailure(Exception):
    """The socket did not answer as it should; the text is a sentence."""


def address_of(url: str) -> SplitResult:
    """Read where the socket is: a site, or the socket itself; https and wss are encrypted."""
    fits = False
    with suppress(ValueError):  # no port, or half an IPv6 address
        parts = urlsplit(url if "://" in url else f"http://{url}")
        known = parts.scheme in ("http", "https", "ws", "wss") and parts.hostname
        fits = bool(known) and parts.port != 0
    if not fits:
        raise SocketFailure(
            f"{one_line(url)!r} is not the address of a site. Expected https://www.example.org. "
            "Correct --url."
        )
    scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
    path = parts.path if parts.path.strip("/") else PATH
    return parts._replace(scheme=scheme, path=path)


async def ask_server(parts: SplitResult, task: UUID, token: str) -> Frame:
    """Subscribe to a task on a server, and return the first frame."""
    secure = ssl.create_default_context() if parts.scheme == "wss" else None
    port = parts.port or (443 if secure else 80)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    except OSError as error:
        raise SocketFailure(f"{parts.netloc} cannot be reached: {one_line(str(error))}.") from error
    try:
        await _shake_hands(reader, writer, parts)
        writer.write(_masked(_TEXT, _subscription(task, token).encode()))
        while True:
            kind, data = await _frame(reader)
            if kind == _TEXT:
                return _decoded(data.decode(errors="replace"))
            if kind == _PING:
                writer.write(_masked(_PONG, data))
            elif kind == _CLOSE:
                raise _closed(int.from_bytes(data[:2]) if len(data) >= 2 else None)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise SocketFailure("The server ended the connection before it answered.") from error
    finally:
        writer.transport.abort()


async def ask_application(application: Application, origin: str, task: UUID, token: str) -> Frame:
    """Subscribe to a task through an application in this process, and return the first frame."""
    said: asyncio.Queue[Frame] = asyncio.Queue()
    heard: asyncio.Queue[Frame] = asyncio.Queue()
    said.put_nowait({"type": "websocket.connect"})
    headers = [(b"host", urlsplit(origin).netloc.encode()), (b"origin", origin.encode())]
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "subprotocols": [SUBPROTOCOL],
    }
    outcome: Frame | SocketFailure
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(_serve(application, scope, said.get, heard))
        try:
            outcome = await _converse(said, heard, _subscription(task, token))
        except SocketFailure as problem:
            outcome = problem
        finally:
            said.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await asyncio.wait([serving], timeout=1)
            serving.cancel()
    if isinstance(outcome, SocketFailure):
        raise outcome
    return outcome


async def _converse(
    said: "asyncio.Queue[Frame]", heard: "asyncio.Queue[Frame]", subscription: str
) -> Frame:
    event = await heard.get()
    if event["type"] != "websocket.accept":
        raise _refused(event)
    said.put_nowait({"type": "websocket.receive", "text": subscription})
    event = await heard.get()
    if event["type"] != "websocket.send":
        raise _refused(event)
    return _decoded(event.get("text") or "")


async def _serve(
    application: Application,
    scope: Frame,
    receive: Callable[[], Awaitable[Frame]],
    heard: "asyncio.Queue[Frame]",
) -> None:
    try:
        await application(scope, receive, heard.put)
    except Exception as error:  # noqa: BLE001 - the whole application of a project runs here
        problem = f"The application raised {type(error).__name__}: {one_line(str(error))}"
        heard.put_nowait({"type": "failed", "problem": problem})
    else:
        heard.put_nowait({"type": "websocket.close"})


def _refused(event: Frame) -> SocketFailure:
    return SocketFailure(event["problem"]) if "problem" in event else _closed(event.get("code"))


def _closed(code: int | None) -> SocketFailure:
    why = f" with code {code}" if code else ""
    return SocketFailure(f"The socket was closed{why} before it answered.")


def _subscription(task: UUID, token: str) -> str:
    return json.dumps({"type": "sub", "id": str(task), "token": token})


def _decoded(text: str) -> Frame:
    try:
        frame = json.loads(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise SocketFailure(f"The socket answered {one_line(text, 60)!r}, which is not a frame.")
    return frame


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: SplitResult
) -> None:
    key = base64.b64encode(os.urandom(16))
    scheme = "https" if parts.scheme == "wss" else "http"
    host = parts.netloc.rpartition("@")[2]
    writer.write(
        f"GET {parts.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key.decode()}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
        f"Origin: {scheme}://{host}\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = head[0].split(" ", 2)
    if status[1:2] != ["101"]:
        raise SocketFailure(f"The server answered {one_line(head[0], 80)!r} to the handshake.")
    headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head)}
    proof = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest()).decode()
    if headers.get("sec-websocket-accept") != proof:
        raise SocketFailure("The server's handshake is not that of a WebSocket.")


def _masked(kind: int, data: bytes) -> bytes:
    mask = os.urandom(4)
    if len(data) < 126:
        head = bytes([0x80 | kind, 0x80 | len(data)])
    else:
        head = bytes([0x80 | kind, 0x80 | 126]) + len(data).to_bytes(2)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one whole message or control frame."""
    kind, whole = 0, b""
    while True:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        if length > _LARGEST or second & 0x80:
            raise SocketFailure("The server sent a frame that is no WebSocket's.")
        data = await reader.readexactly(length)
        if first & 0x0F >= _CLOSE:
            return first & 0x0F, data
        kind, whole = kind or first & 0x0F, whole + data
        if first & 0x80:
            return kind, whole

"""
Hostile clients of the socket and the polling endpoint, in the numbers of the promises.

B24 to B32 have most of their tests in test_access.py, test_socket_limits.py and
unit/web/test_protocol.py; here is what needs a crowd of frames, or a real server in front.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cq.web.protocol import Limits
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.test_access import Person
from tests.integration.watching import Frame, Page, Rows, Tree, page
from tests.integration.watching import rows as thread_for_rows
from tests.web_process import WebProcess
from tests.workers import WorkerFactory

FRAMES = 10_000
UNLIMITED = Limits(
    frames_per_second=1e9, burst=10**9, offences=10**9, window=10**9, window_chars=10**12
)


@pytest.fixture
def rows(database: Any, use_layers: Layers) -> Iterator[Rows]:
    use_layers("none")
    with thread_for_rows() as made:
        yield made


@pytest.fixture
async def tree(rows: Rows) -> Tree:
    made: Tree = await rows(Tree)
    return made


class Fuzzer:
    """Frames near the protocol: some right, most a little or altogether wrong."""

    def __init__(self, rand: random.Random, ids: list[str], token: str) -> None:
        self._rand, self._ids, self._token = rand, ids, token

    def frame(self) -> str | bytes:
        draw = self._rand.random()
        if draw < 0.02:
            return self._rand.randbytes(self._rand.randrange(40))
        if draw < 0.12:
            return self._text()
        if draw < 0.2:
            return json.dumps(self._value(3))
        whole = json.dumps({name: self._field(name) for name in self._names()})
        if draw < 0.3:
            cut = self._rand.randrange(len(whole))
            return whole[:cut] + self._text()[:2] + whole[cut + 1 :]
        return whole

    def _names(self) -> list[str]:
        names = ["id", "token", "since", "tail", "do", "frame", "__class__", "seq"]
        return ["type", *self._rand.sample(names, self._rand.randrange(6))]

    def _field(self, name: str) -> Any:
        right: dict[str, list[Any]] = {
            "type": ["sub", "sub", "unsub", "act", "ack", "ping", "_close", "bye", "__init__"],
            "id": self._ids,
            "token": [self._token, self._token[:-1], "", None],
            "since": [0, 1, -1, 10**18, 2**63, "abc", 1.5, None],
            "tail": [0, 10, 10**9, -5],
            "do": ["revoke", "retry", "delete"],
            "frame": [0, 1, 5, 10**12, -1],
        }
        if name in right and self._rand.random() < 0.9:
            return self._rand.choice(right[name])
        return self._value(2)

    def _value(self, depth: int) -> Any:
        kind = self._rand.randrange(7 if depth else 5)
        if kind == 5:
            return [self._value(depth - 1) for _ in range(self._rand.randrange(4))]
        if kind == 6:
            return {self._text(): self._value(depth - 1) for _ in range(self._rand.randrange(4))}
        leaves: list[Any] = [None, True, self._rand.randint(-(2**70), 2**70), 1e308, self._text()]
        return leaves[kind]

    def _text(self) -> str:
        alphabet = 'aé\u202e\x00\x1b\ud800\U0001f600"\\{}[]<&\n 0'
        return "".join(self._rand.choices(alphabet, k=self._rand.randrange(12)))


class TestFuzz:
    """B27, B30, B32: whatever is sent, the socket answers with its own codes, and lives."""

    @pytest.mark.parametrize("seed", [1])
    async def test_ten_thousand_random_frames(
        self, tree: Tree, rows: Rows, caplog: pytest.LogCaptureFixture, seed: int
    ):
        caplog.set_level(logging.WARNING)
        child, stranger = await rows(tree.child), await rows(Tree)
        last = await rows(Tree)
        await rows(last.log, "still there")
        ids = [str(tree.id), tree.id.hex, str(child.id), str(stranger.id), str(uuid4()), "a b"]
        fuzzer = Fuzzer(random.Random(seed), ids, watch_token(tree.root, ["log", "tree"]))
        async with page(limits=UNLIMITED) as visitor:
            for _ in range(FRAMES):
                frame = fuzzer.frame()
                kind = "bytes" if isinstance(frame, bytes) else "text"
                await visitor._communicator.send_input({"type": "websocket.receive", kind: frame})
            await visitor.watch(last, token=watch_token(last.root, ["log"]), since=0)
            async with asyncio.timeout(40):
                frames = [frame async for frame in frames_until(visitor, "log", str(last.id))]
        assert caplog.messages == []
        codes = {frame["code"] for frame in frames if frame["type"] == "err"}
        assert codes >= {"bad_frame", "unknown_type", "bad_id", "bad_since", "refused"}
        assert not codes & {"unavailable", "gone"}
        assert str(stranger.id) not in json.dumps(
            [frame for frame in frames if frame["type"] != "err"]
        )
        await rows(tree.root.refresh_from_db)
        assert tree.root.status == "Q"


class TestOversize:
    """B28, B29: what is too large is refused, before daphne or by it, and nobody else notices."""

    @pytest.fixture
    def web(self, worker_process: WorkerFactory) -> Iterator[WebProcess]:
        made = WebProcess(worker_process)
        yield made
        made.stop()

    async def test_a_frame_of_a_mebibyte_and_a_flood_through_a_real_server(
        self, rows: Rows, web: WebProcess, tree: Tree
    ):
        """B28: 1 MiB, the header of 1 GiB, 10,000 frames: each socket is closed, daphne lives."""
        at_rest = web.mark_memory()
        async with dial(web) as large, dial(web) as flood, dial(web) as good:
            await good.send(subscription(tree))
            await large.send("x" * 2**20)
            assert await close_code(large) == 4008
            with suppress(ConnectionClosed):
                for _ in range(FRAMES):
                    await flood.send(PING)
            # Whoever still writes may lose the goodbye with the connection.
            assert await close_code(flood) in (4008, 1006)
            reader, writer = await raw_socket(web)
            masked_text_of_a_gibibyte = b"\x81\xff" + (2**30).to_bytes(8) + bytes(4)
            writer.write(masked_text_of_a_gibibyte + b"x" * 10_000)
            with suppress(ConnectionResetError):  # daphne ends it, the gibibyte or not
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await good.send(PING)
            async for text in good:
                if json.loads(text)["type"] == "pong":
                    break
        assert web.peak_memory() - at_rest < 30

    async def test_a_list_of_ids_is_no_id(self, tree: Tree):
        """B29: one task a frame; a hundred thousand are one frame that is too large."""
        async with page() as visitor:
            await visitor.send(type="sub", id=[str(tree.id)] * 50)
            assert (await visitor.next())["code"] == "bad_id"
            await visitor.send(type="sub", id=[str(tree.id)] * 100_000)
            assert (await visitor.until("bye"))["reason"] == "a frame is too large"
            assert await visitor.next() == {"type": "close", "code": 4008}


class TestNumbers:
    """B30: a `since` that is none is an error, and five of them are enough."""

    async def test_since(self, tree: Tree):
        async with page() as visitor:
            for since in (-1, "abc", 2**63, 1.5):
                await visitor.watch(tree, token=watch_token(tree.root, ["log"]), since=since)
                assert (await visitor.next())["code"] == "bad_since"
            await visitor.watch(tree, token=watch_token(tree.root, ["log"]), since=[1])
            await visitor.until("bye")


class TestPolling:
    """B24, B25, B28 where the socket does not get through."""

    def test_another_site_can_neither_read_nor_act(self, tree_of_staff: tuple[Tree, Person]):
        """B24: no answer allows another origin, and no action goes without the CSRF token."""
        tree, person = tree_of_staff
        headers = {"Origin": "https://evil.example"}
        answer = person.client.get(f"/cq/t/{tree.id}/watch", headers=headers)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = person.client.cookies
        assert strict.post(f"/cq/t/{tree.id}/revoke", headers=headers).status_code == 403

    @pytest.mark.parametrize("end", ["log_out", "deactivate", "change_password", "expire"])
    def test_a_session_that_has_ended_is_refused_at_once(
        self, tree_of_staff: tuple[Tree, Person], end: str
    ):
        """B25: the next question gets the 404 of a task that is not, an ETag or none."""
        tree, person = tree_of_staff
        cookies = person.session
        first = person.client.get(f"/cq/t/{tree.id}/watch")
        assert first.status_code == 200
        getattr(person, end)()
        client = Client()
        client.cookies["sessionid"] = cookies
        headers = {"If-None-Match": first["ETag"]}
        assert client.get(f"/cq/t/{tree.id}/watch", headers=headers).status_code == 404

    @pytest.mark.parametrize("header", ["x" * 5000, "a.b.c", "\x00", "' OR 1=1 --"])
    def test_a_token_that_is_none(self, tree_of_staff: tuple[Tree, Person], header: str):
        tree, _ = tree_of_staff
        answer = Client().get(
            f"/cq/t/{tree.id}/watch", headers={"Authorization": f"Bearer {header}"}
        )
        assert answer.status_code == 404

    @pytest.fixture
    def tree_of_staff(self, database: Any, use_layers: Layers) -> tuple[Tree, Person]:
        use_layers("none")
        return Tree(), Person("boss", "view_task", "revoke_task", is_staff=True)


def test_a_session_that_has_ended_is_noticed_within_thirty_seconds():
    """B25, P34: the defaults, which the tests of test_access.py shorten."""
    limits = Limits()
    assert limits.reauthorise + limits.tick < 30


async def frames_until(visitor: Page, kind: str, id: str) -> AsyncIterator[Frame]:
    """Every frame up to the first of a type about a task, straight from the application."""
    while True:
        event = await visitor._communicator.output_queue.get()
        frame: Frame = json.loads(event["text"])
        yield frame
        if (frame["type"], frame.get("id")) == (kind, id):
            return


PING = json.dumps({"type": "ping"})


def subscription(tree: Tree) -> str:
    return json.dumps({"type": "sub", "id": str(tree.id), "token": watch_token(tree.root)})


def dial(web: WebProcess) -> connect:
    """Open a socket to a real server."""
    return connect(
        web.url.replace("http", "ws", 1) + "/cq/ws",
        subprotocols=[Subprotocol("cq.v1")],
        additional_headers={"Origin": web.url},
        compression=None,
    )


async def close_code(socket: ClientConnection) -> int | None:
    """Read to the end; the code of the close."""
    async with asyncio.timeout(20):
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


async def raw_socket(web: WebProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket after its handshake, without a library in between."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(
        f"GET /cq/ws HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nOrigin: {web.url}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: cq.v1\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer

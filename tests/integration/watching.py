"""
A page without a browser: a client of the socket, and trees made by hand.

`Page` speaks cq.v1 through the real ASGI application, so that Channels' routing, sessions
and users are in the path. `Tree` writes rows as the engine would, in the order it would.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.db.models import F
from django.urls import path

from cq.aio import Lane
from cq.models import LogLine, Stream, Task
from cq.progress import publisher
from cq.web.consumers import TaskSocket
from cq.web.protocol import SUBPROTOCOL, Limits

ORIGIN = (b"origin", b"http://testserver")
HOST = (b"host", b"testserver")
QUIET_SECONDS = 0.4

Frame = dict[str, Any]


class Page:
    """One page with one open socket; acks what it reads unless `acks` is off."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self._communicator = communicator
        self.acks = True
        self.frames: list[Frame] = []

    async def send(self, **frame: Any) -> None:
        await self._communicator.send_json_to(frame)

    async def send_text(self, text: str) -> None:
        await self._communicator.send_to(text_data=text)

    async def send_bytes(self, data: bytes) -> None:
        await self._communicator.send_to(bytes_data=data)

    async def watch(self, task: object, **more: Any) -> None:
        """Subscribe to a task, given by row or id."""
        await self.send(type="sub", id=str(getattr(task, "id", task)), **more)

    async def next(self, timeout: float = 5) -> Frame:
        """The next frame, or {"type": "close", "code": …}."""
        event = await self._communicator.receive_output(timeout)
        if event["type"] == "websocket.close":
            return {"type": "close", "code": event.get("code")}
        frame: Frame = json.loads(event["text"])
        self.frames.append(frame)
        if self.acks and "frame" in frame:
            await self.send(type="ack", frame=frame["frame"])
        return frame

    async def until(self, kind: str, timeout: float = 8) -> Frame:
        """Read on until a frame of this type."""
        while True:
            frame = await self.next(timeout)
            if frame["type"] == kind:
                return frame
            assert frame["type"] != "close", f"closed with {frame['code']} before {kind!r}"

    async def until_status(self, status: str, id: object = None, timeout: float = 8) -> Frame:
        """Read on until a task is seen in a status; returns its node."""
        while True:
            for node in nodes_of(await self.next(timeout)):
                if node["status"] == status and id in (None, node["id"]):
                    return node

    async def until_line(self, seq: int, timeout: float = 8) -> None:
        """Read on until a line with this number has come."""
        while seq not in self.numbers():
            await self.next(timeout)

    async def is_quiet(self) -> bool:
        """Whether nothing comes for a while."""
        return bool(await self._communicator.receive_nothing(QUIET_SECONDS, 0.02))

    def lines(self) -> list[Frame]:
        """Every line received so far."""
        return [line for frame in self.frames for line in frame.get("lines", ())]

    def numbers(self) -> list[int]:
        """Their numbers."""
        return [line["seq"] for line in self.lines()]

    def types(self) -> list[str]:
        """The types of all frames so far."""
        return [frame["type"] for frame in self.frames]


def nodes_of(frame: Frame) -> list[Frame]:
    """The states that a frame carries."""
    return [*frame.get("nodes", ()), *frame.get("tree", ()), *filter(None, [frame.get("state")])]


def application(limits: Limits | None = None) -> Any:
    """The socket behind sessions and users, as a project mounts it."""
    routes = [path("cq/ws", TaskSocket.as_asgi(limits))]  # type: ignore[arg-type]
    return AuthMiddlewareStack(URLRouter(routes))  # type: ignore[arg-type]


def communicator(
    *,
    session: str = "",
    origin: bytes | None = ORIGIN[1],
    limits: Limits | None = None,
    subprotocols: tuple[str, ...] = (SUBPROTOCOL,),
    url: str = "/cq/ws",
) -> WebsocketCommunicator:
    headers = [HOST]
    if origin is not None:
        headers.append((b"origin", origin))
    if session:
        headers.append((b"cookie", f"sessionid={session}".encode()))
    return WebsocketCommunicator(application(limits), url, headers, list(subprotocols))


@asynccontextmanager
async def page(**options: Any) -> AsyncIterator[Page]:
    """An open socket."""
    talk = communicator(**options)
    accepted, subprotocol = await talk.connect(timeout=5)
    assert accepted, subprotocol
    assert subprotocol == SUBPROTOCOL
    yield Page(talk)
    await talk.disconnect(timeout=5)


async def is_accepted(**options: Any) -> bool:
    """Whether a handshake succeeds."""
    talk = communicator(**options)
    accepted, _ = await talk.connect(timeout=5)
    await (talk.disconnect(timeout=5) if accepted else talk.wait(timeout=5))
    return bool(accepted)


class Tree:
    """A root and what follows from it, written to the rows and told to watchers."""

    def __init__(self, **fields: Any) -> None:
        self.root = Task(func_name=fields.pop("func_name", "tests.import_csv"), **fields)
        Task.objects.bulk_create([self.root])
        self.tells = True

    @property
    def id(self) -> UUID:
        return self.root.id

    def child(self, **fields: Any) -> Task:
        """Add a task below the root."""
        task = Task(parent=self.root, root=self.root, depth=1, func_name="tests.row", **fields)
        Task.objects.bulk_create([task])
        _, made = Stream.objects.get_or_create(root=self.id, defaults={"tree_open": 2})
        if not made:
            Stream.objects.filter(root=self.id).update(tree_open=F("tree_open") + 1)
        self._tell_state(task)
        return task

    def log(self, *messages: str, task: Task | None = None, tell: bool = True) -> None:
        """Record lines, then tell them."""
        task = task or self.root
        stream, _ = Stream.objects.get_or_create(root=self.id, defaults={"tree_open": 1})
        at = datetime.now(UTC)
        rows = [
            LogLine(
                root=self.id,
                seq=stream.seq + number,
                task=task.id,
                func_name=task.func_name,
                attempt=1,
                level=20,
                message=message,
                at=at,
            )
            for number, message in enumerate(messages, start=1)
        ]
        LogLine.objects.bulk_create(rows)
        Stream.objects.filter(root=self.id).update(seq=stream.seq + len(rows))
        if tell and self.tells:
            publisher.lines(
                self.id.hex,
                [
                    publisher.line(
                        seq=row.seq,
                        task=row.task,
                        name=row.func_name,
                        attempt=row.attempt,
                        level=row.level,
                        message=row.message,
                        at=at,
                    )
                    for row in rows
                ],
            )

    def move(self, status: str, task: Task | None = None, **fields: Any) -> None:
        """Write a status as a transition would, then tell it."""
        task = task or self.root
        fields = {"status": status, **fields}
        if status == "R":
            fields |= {"claim_token": task.id, "started": datetime.now(UTC), "attempts": 1}
        else:
            fields["claim_token"] = None
        if status in Task.STATUS_DONE:
            fields["finished"] = datetime.now(UTC)
            Stream.objects.filter(root=self.id).update(tree_open=F("tree_open") - 1)
        Task.objects.filter(pk=task.pk).update(**fields)
        task.refresh_from_db()
        self._tell_state(task)
        if self.tells and status in Task.STATUS_DONE:
            publisher.end(self.id.hex)

    def _tell_state(self, task: Task) -> None:
        if self.tells:
            publisher.states(
                self.id.hex,
                [
                    publisher.node(
                        task.id,
                        name=task.func_name,
                        status=task.status,
                        parent=task.parent_id,
                        attempt=task.attempts,
                    )
                ],
            )


class Rows:
    """Runs what touches the rows on a thread of its own, so that the loop goes on."""

    def __init__(self) -> None:
        self._lane = Lane("test-rows")

    async def __call__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._lane.run(lambda: fn(*args, **kwargs))

    def close(self) -> None:
        self._lane.executor.submit(connections.close_all).result(5)
        self._lane.close()


@contextmanager
def rows() -> Iterator[Rows]:
    """A thread for the rows, closed with its session."""
    made = Rows()
    yield made
    made.close()

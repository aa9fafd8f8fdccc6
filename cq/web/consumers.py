"""
The socket: one connection of one page, with many subscriptions.

A plain ASGI application per connection. Three tasks share it: one hears the client, one
tells it what its subscriptions are due, one watches the clock (rights, idleness, readers
that stopped). Whatever ends the socket raises Hangup, so that there is one way out.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from cq.errors import CQError, InvalidFrame, Refused
from cq.web import access, actions
from cq.web import hub as hubs
from cq.web.outbox import Outbox
from cq.web.protocol import (
    SUBPROTOCOL,
    Ack,
    Act,
    Allowance,
    Limits,
    Ping,
    Sub,
    Unsub,
    Verb,
    encode,
    error_frame,
    parse,
)
from cq.web.subscription import Frame, Subscription

POLICY = 4008
"""
Close code: the client broke a rule of the protocol.

WebSocket's own 1008, 1011 and 1013 are not for applications: daphne refuses to send them.
"""
FAILED = 4011
"""Close code: the server could not go on."""
TRY_AGAIN = 4013
"""Close code: the client may come back, with `since`."""
RETRY_SECONDS = 1.0

logger = logging.getLogger("cq.web")

T = TypeVar("T")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Hangup(Exception):
    """The socket ends; without a code because the client has left."""

    def __init__(self, code: int | None = None, reason: str = "", after: float = 1.0) -> None:
        super().__init__(reason)
        self.code, self.reason, self.after = code, reason, after


class TaskSocket:
    """One WebSocket of protocol cq.v1; make the application with `TaskSocket.as_asgi()`."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits, self._scope = limits, scope
        self._receive, self._send_event = receive, send
        self._subscriptions: dict[UUID, Subscription] = {}
        self._news = asyncio.Event()
        self._user: Any = None
        self._offences = 0
        self._clock = time.monotonic
        self._outbox = Outbox(self._send_text, limits, self._clock)
        self._allowance = Allowance(limits.frames_per_second, limits.burst, self._clock())
        self._idle_since: float | None = self._clock()
        self._authorised_at = self._clock()
        self._verbs: dict[type, Callable[[Any], Awaitable[None]]] = {
            Sub: self._on_sub,
            Unsub: self._on_unsub,
            Act: self._on_act,
            Ping: self._on_ping,
        }

    @classmethod
    def as_asgi(cls, limits: Limits | None = None) -> Callable[..., Awaitable[None]]:
        """Make the ASGI application, one socket object per connection."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(limits or Limits(), scope, receive, send).run()

        application.consumer_class = cls  # type: ignore[attr-defined] # as Channels' own do
        return application

    async def run(self) -> None:
        """Live from the handshake to the close."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        offered = self._scope.get("subprotocols") or []
        headers = self._scope.get("headers", [])
        if SUBPROTOCOL not in offered or not access.is_allowed_origin(headers):
            await self._send_event({"type": "websocket.close", "code": POLICY})
            return
        await self._send_event({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        async with hubs.joined() as self._hub:
            hangup = await self._live()
            if hangup.code is not None:
                await self._send({"type": "bye", "reason": hangup.reason, "after": hangup.after})
                await self._send_event({"type": "websocket.close", "code": hangup.code})

    async def _live(self) -> Hangup:
        hangup = Hangup()
        try:
            self._user = await self._hub.ask(access.present_user, self._scope)
            with self._hub.room_for(self._user, self._limits.sockets_per_user) as is_there_room:
                if not is_there_room:
                    raise Hangup(POLICY, "too many sockets of one user", after=60)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._hear())
                    tasks.create_task(self._tell())
                    tasks.create_task(self._watch_the_clock())
        except* Hangup as group:
            hangup = _first(group)
        except* OSError:
            pass  # the client has left, and the server said so by raising
        except* Exception:
            logger.exception("A socket of a live view failed; its page connects again.")
            hangup = Hangup(FAILED, "the server failed", after=5)
        finally:
            for subscription in tuple(self._subscriptions.values()):
                self._drop(subscription)
        return hangup

    async def _send(self, frame: Frame) -> None:
        await self._send_text(encode(frame))

    async def _send_text(self, text: str) -> None:
        await self._send_event({"type": "websocket.send", "text": text})

    # --- hearing

    async def _hear(self) -> None:
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise Hangup
            try:
                verb = self._read(event.get("text"))
            except InvalidFrame as error:
                await self._object(error)
                continue
            if isinstance(verb, Ack) and self._outbox.ack(verb.frame):
                self._news.set()  # such acks are as many as our own frames: they need no limit
                continue
            if not self._allowance.take(self._clock()):
                raise Hangup(POLICY, "too many frames a second", after=10)
            if not isinstance(verb, Ack):
                await self._verbs[type(verb)](verb)

    def _read(self, text: str | None) -> Verb:
        if text is None:
            raise InvalidFrame("A binary frame came. Expected text. Send JSON.", code="bad_frame")
        if len(text.encode(errors="replace")) > self._limits.frame_bytes:
            raise Hangup(POLICY, "a frame is too large", after=10)
        return parse(text)

    async def _object(self, error: InvalidFrame) -> None:
        self._offences += 1
        await self._send(error_frame(str(error.facts["code"]), str(error)))
        if self._offences >= self._limits.offences:
            raise Hangup(POLICY, "too many frames outside the protocol", after=10)

    async def _on_sub(self, request: Sub) -> None:
        known = self._subscriptions.get(request.id)
        if known is not None:
            self._drop(known)
        if len(self._subscriptions) >= self._limits.subscriptions:
            message = (
                f"This socket watches {self._limits.subscriptions} tasks already. Expected no "
                "more. Unsubscribe from one, or watch their parent with its tree."
            )
            await self._send(error_frame("too_many", message, id=request.id))
            return
        grant = await self._answer(
            request.id,
            self._hub.ask(access.grant, request.id, user=self._user, token=request.token),
        )
        if grant is not None:
            subscription = Subscription(request, grant, self._limits, self._hub.ask, self._news.set)
            self._subscriptions[request.id] = subscription
            self._idle_since = None
            self._hub.watch(subscription)

    async def _on_unsub(self, request: Unsub) -> None:
        known = self._subscriptions.get(request.id)
        if known is not None:
            self._drop(known)

    async def _on_act(self, request: Act) -> None:
        root = await self._answer(
            request.id,
            self._hub.act(
                actions.act, request.do, request.id, user=self._user, token=request.token
            ),
        )
        if root is not None:
            self._hub.read_now(root)
            await self._send({"type": "did", "id": str(request.id), "do": request.do})

    async def _on_ping(self, request: Ping) -> None:
        await self._send({"type": "pong"})

    async def _answer(self, id: UUID, asked: Awaitable[T]) -> T | None:
        """Wait for what was asked of the rows, or tell the client why not and return None."""
        try:
            return await asked
        except Refused as error:
            await self._send(error_frame(str(error.facts["code"]), str(error), id=id))
        except CQError as error:
            await self._send(error_frame("failed", str(error), id=id))
        except Exception as error:  # noqa: BLE001 - one question that fails must not end the socket
            self._hub.note_failure(error)
            message = "The rows cannot be read now. Expected a database. Try again in a moment."
            await self._send(error_frame("unavailable", message, id=id))
        return None

    def _drop(self, subscription: Subscription) -> None:
        self._hub.unwatch(subscription)
        if self._subscriptions.get(subscription.id) is subscription:
            del self._subscriptions[subscription.id]
        if not self._subscriptions:
            self._idle_since = self._clock()

    # --- telling

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self._tell_each():
                    pass
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - the rows may be there again in a moment
                self._hub.note_failure(error)
                await asyncio.sleep(RETRY_SECONDS)
                self._news.set()

    async def _tell_each(self) -> bool:
        """Send one frame of each subscription; False when none was due."""
        any_sent = False
        for subscription in tuple(self._subscriptions.values()):
            if self._outbox.is_full:
                return False
            frame = await subscription.next_frame()
            if frame is None or self._subscriptions.get(subscription.id) is not subscription:
                continue  # nothing is due, or the client has changed its mind meanwhile
            any_sent = True
            await self._outbox.send(frame)
            if subscription.over:
                self._drop(subscription)
        return any_sent

    # --- the clock

    async def _watch_the_clock(self) -> None:
        while True:
            await asyncio.sleep(self._limits.tick)
            now = self._clock()
            if self._outbox.has_stalled:
                raise Hangup(TRY_AGAIN, "nothing is acked: reconnect with since")
            if self._idle_since is not None and now - self._idle_since > self._limits.idle:
                raise Hangup(1000, "nothing is watched")
            if now - self._authorised_at >= self._limits.reauthorise:
                await self._reauthorise()

    async def _reauthorise(self) -> None:
        """Check every right again; a reader who has been logged out is sent away."""
        try:
            user = await self._hub.ask(access.present_user, self._scope)
            if self._user is not None and (user is None or user.pk != self._user.pk):
                raise Hangup(POLICY, "the session has ended")
            self._user = user
            for subscription in tuple(self._subscriptions.values()):
                await self._recheck(subscription)
        except (Hangup, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - rights are checked again at the next tick
            self._hub.note_failure(error)
        else:
            self._authorised_at = self._clock()

    async def _recheck(self, subscription: Subscription) -> None:
        try:
            grant = await self._hub.ask(
                access.grant, subscription.id, user=self._user, token=subscription.token
            )
        except Refused as error:
            self._drop(subscription)
            code = str(error.facts["code"])
            await self._send(error_frame(code, str(error), id=subscription.id))
        else:
            subscription.scopes &= grant.scopes


def _first(group: BaseExceptionGroup[Hangup]) -> Hangup:
    found = group.exceptions[0]
    return found if isinstance(found, Hangup) else _first(found)

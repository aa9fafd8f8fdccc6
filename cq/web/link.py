"""
The link: this process's membership in the groups of the trees it watches.

One channel of the browser layer receives for all of them. Joining a group proves nothing,
so a nonce is sent through it: a feed is live once the nonce has come back, and it is
joined, proved and announced to the workers again every 30 seconds, because a layer may
forget. Without a layer that crosses processes there is nothing to do, and no feed is live.
"""

import asyncio
import itertools
import time
from collections.abc import Callable

from channels.layers import BaseChannelLayer, channel_layers

from cq import conf
from cq.progress import publisher
from cq.transport.groups import (
    WATCHERS_GROUP,
    WORKERS_GROUP,
    audience_messages,
    event_message,
    kind_of,
    root_group,
    root_of,
)
from cq.transport.messages import Message
from cq.transport.outage import Outage
from cq.transport.own_layer import crosses_processes
from cq.web.feed import Feed

BARRIER_SECONDS = 1.0
RENEW_SECONDS = 30.0
SEND_SECONDS = 2.0
NONCE = "nonce"


class Member:
    """The state of one root's membership: when to renew it, which nonce is under way."""

    __slots__ = ("feed", "nonce", "overdue_at", "renew_at")

    def __init__(self, feed: Feed, now: float) -> None:
        self.feed = feed
        self.nonce = ""
        self.renew_at = now
        self.overdue_at = now + BARRIER_SECONDS


class Link:
    """
    The one connection of a hub to the layers; `run` keeps it until it is cancelled.

    `on_event` gets every event of another process, `on_live` a feed whose membership was
    proved or is in doubt.
    """

    def __init__(
        self,
        on_event: Callable[[str, Message], None],
        on_live: Callable[[Feed, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = conf.current()
        self._alias = settings.browser_layer or ""
        self.crosses = crosses_processes(settings.browser_layer)
        self._on_event, self._on_live, self._clock = on_event, on_live, clock
        self._members: dict[str, Member] = {}
        self._left: list[str] = []
        self._unannounced: set[str] = set()
        self._channel = ""
        self._stirred = asyncio.Event()
        self._news = asyncio.Event()
        self._nonces = itertools.count(1)
        self._outage = Outage(f"The browser layer {self._alias!r}")
        self._silence = Outage("Announcing to the workers who is watching")

    def join(self, feed: Feed) -> float:
        """Take a feed in; returns the moment from which it is read even without proof."""
        now = self._clock()
        member = self._members[feed.root.hex] = Member(feed, now)
        self._unannounced.add(feed.root.hex)
        self._stirred.set()
        self._news.set()
        return member.overdue_at if self.crosses and not self._outage.ongoing else now

    def leave(self, feed: Feed) -> None:
        """Let a feed go."""
        if self._members.pop(feed.root.hex, None) is not None:
            self._unannounced.discard(feed.root.hex)
            self._left.append(feed.root.hex)
            self._stirred.set()

    async def run(self) -> None:
        """Receive events and renew memberships until cancelled."""
        async with asyncio.TaskGroup() as services:
            if self.crosses:
                services.create_task(self._announce_for_ever())
                services.create_task(self._receive_for_ever())
                services.create_task(self._renew_for_ever())

    # --- receiving

    async def _receive_for_ever(self) -> None:
        layer = _layer(self._alias)
        while _is_wanted():
            try:
                if not self._channel:
                    self._channel = await layer.new_channel()
                    self._stirred.set()
                message = await layer.receive(self._channel)
            except Exception as error:  # noqa: BLE001 - a layer may raise anything; watchers live on from the rows
                if type(error).__name__ == "TimeoutError" and self._channel:
                    continue  # redis-py gave up on an idle connection: nothing is wrong
                await asyncio.sleep(self._outage.failed(error))
            else:
                self._take(message)

    def _take(self, message: object) -> None:
        root = root_of(message)
        if root is None or not isinstance(message, dict):
            if publisher.is_question(message):
                self._unannounced.update(self._members)
                self._news.set()
            return
        if kind_of(message) == NONCE:
            self._prove(root, message.get("nonce"))
        elif message.get("origin") != publisher.ORIGIN:
            self._on_event(root, message)

    def _prove(self, root: str, nonce: object) -> None:
        member = self._members.get(root)
        if member is not None and member.nonce and member.nonce == nonce:
            member.nonce = ""
            member.overdue_at = float("inf")
            self._outage.over()
            self._on_live(member.feed, True)

    # --- renewing

    async def _renew_for_ever(self) -> None:
        while _is_wanted():
            await self._pause()
            if not self._channel:
                continue
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._leave_groups()
                    await self._renew_due()
            except Exception as error:  # noqa: BLE001 - see _receive_for_ever
                wait = self._outage.failed(error)
                self._doubt_overdue()
                await asyncio.sleep(wait)

    async def _pause(self) -> None:
        self._doubt_overdue()
        now = self._clock()
        if self._channel and any(member.renew_at <= now for member in self._members.values()):
            return
        try:
            async with asyncio.timeout(BARRIER_SECONDS / 2):
                await self._stirred.wait()
        except TimeoutError:
            pass
        self._stirred.clear()

    async def _renew_due(self) -> None:
        layer, now = _layer(self._alias), self._clock()
        due = [member for member in self._members.values() if member.renew_at <= now]
        if due:
            await layer.group_add(WATCHERS_GROUP, self._channel)
        for member in due:
            root = member.feed.root.hex
            await layer.group_add(root_group(root), self._channel)
            if not member.nonce:
                member.overdue_at = self._clock() + BARRIER_SECONDS
            member.nonce = f"{publisher.ORIGIN}.{next(self._nonces)}"
            member.renew_at = self._clock() + RENEW_SECONDS
            await layer.group_send(
                root_group(root),
                event_message(root, NONCE, publisher.ORIGIN, nonce=member.nonce),
            )

    def _doubt_overdue(self) -> None:
        now = self._clock()
        for member in self._members.values():
            if member.overdue_at <= now:
                member.overdue_at = float("inf")
                member.renew_at = min(member.renew_at, now + 2 * BARRIER_SECONDS)
                self._on_live(member.feed, False)

    async def _leave_groups(self) -> None:
        layer = _layer(self._alias)
        while self._left:
            if self._left[-1] not in self._members:
                await layer.group_discard(root_group(self._left[-1]), self._channel)
            self._left.pop()

    # --- announcing

    async def _announce_for_ever(self) -> None:
        again_at = self._clock() + RENEW_SECONDS
        while _is_wanted():
            try:
                async with asyncio.timeout(max(0.0, again_at - self._clock())):
                    await self._news.wait()
            except TimeoutError:
                self._unannounced.update(self._members)
                again_at = self._clock() + RENEW_SECONDS
            self._news.clear()
            roots, self._unannounced = self._unannounced, set()
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._announce(roots)
            except Exception as error:  # noqa: BLE001 - see _receive_for_ever
                self._unannounced |= roots & self._members.keys()
                self._news.set()
                await asyncio.sleep(self._silence.failed(error))

    async def _announce(self, roots: set[str]) -> None:
        for message in audience_messages(sorted(roots)):
            await _layer(self._alias).group_send(WORKERS_GROUP, message)
        if roots:
            self._silence.over()


def _layer(alias: str) -> BaseChannelLayer:
    # The instance that the server's loop shares, not one of our own: its connections stay.
    layer: BaseChannelLayer = channel_layers[alias]
    return layer


def _is_wanted() -> bool:
    # On Python 3.11 asyncio.wait_for, which redis-py calls, can swallow a cancellation.
    task = asyncio.current_task()
    return task is not None and not task.cancelling()

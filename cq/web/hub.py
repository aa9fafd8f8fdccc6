"""
The hub: what all sockets of one process share while there are any.

One feed per watched tree, one link to the layers, one reader of the rows that serves every
feed that is due in a single call. The hub lives as long as its sockets: the first one
starts it, the last one stops it and waits until it has stopped.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, ParamSpec, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import DatabaseError, InterfaceError, OperationalError, connections

from cq.aio import Lane
from cq.progress import publisher
from cq.transport.groups import root_of
from cq.transport.messages import Message
from cq.web import snapshot
from cq.web.feed import Feed
from cq.web.link import Link
from cq.web.subscription import Subscription

BATCH_SECONDS = 0.25
"""News of a tree are told at once, then gathered for this long."""
LIVE_READ_SECONDS = 10.0
"""Seconds between two looks at the rows while events arrive."""
BLIND_READ_SECONDS = 1.0
"""Likewise while they do not."""
RETRY_SECONDS = 1.0
FEEDS_PER_READ = 200

logger = logging.getLogger("cq.web")

P = ParamSpec("P")
T = TypeVar("T")

_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, "Hub"] = WeakKeyDictionary()


@asynccontextmanager
async def joined() -> AsyncIterator["Hub"]:
    """Be one of the sockets that share the hub of this event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub(loop)
    hub.members += 1
    try:
        yield hub
    finally:
        hub.members -= 1
        if not hub.members:
            del _hubs[loop]
            await hub.stop()


class Hub:
    """The feeds of this process, and the services that keep them true."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.members = 0
        self._sockets: Counter[str] = Counter()
        self._loop = loop
        self._clock = time.monotonic
        self._feeds: dict[str, Feed] = {}
        self._told: dict[str, float] = {}
        self._stirred = asyncio.Event()
        self._is_reading_well = True
        self._reads, self._asks = Lane("cq-live-reads"), Lane("cq-live-asks")
        self._acts = Lane("cq-live-acts")
        self._link = Link(self._take_event, self._set_live)
        publisher.attach(self._take_from_any_thread)
        # The one task that no group owns: the hub itself, which stop() ends and awaits.
        self._services = loop.create_task(self._run())

    async def stop(self) -> None:
        """End every service; called when the last socket has left."""
        publisher.detach(self._take_from_any_thread)
        self._services.cancel()
        await asyncio.wait([self._services])
        for lane in (self._reads, self._asks, self._acts):
            lane.close()

    async def ask(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the ORM, in turn with those of the other sockets."""
        return await self._asks.run(lambda: _on_session(fn, *args, **kwargs))

    async def act(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an action likewise; it may wait for locks, which must hold up nobody's questions."""
        return await self._acts.run(lambda: _on_session(fn, *args, **kwargs))

    @contextmanager
    def room_for(self, user: Any, most: int) -> Iterator[bool]:
        """Count a socket of a user while the block runs; False when it is one too many."""
        key = "" if user is None else str(user.pk)
        self._sockets[key] += 1
        try:
            yield not key or self._sockets[key] <= most
        finally:
            self._sockets[key] -= 1
            if not self._sockets[key]:
                del self._sockets[key]

    def watch(self, subscription: Subscription) -> None:
        """Let a subscription follow its tree; it is woken when its snapshot is ready."""
        hexed = subscription.root.hex
        feed = self._feeds.get(hexed)
        not_before = 0.0
        if feed is None:
            feed = self._feeds[hexed] = Feed(subscription.root, self._clock)
            publisher.mark(hexed)
            not_before = self._link.join(feed)
        elif not feed.reads_done:
            not_before = feed.rows_at
        subscription.feed = feed
        feed.add(subscription, not_before)
        self._stirred.set()

    def unwatch(self, subscription: Subscription) -> None:
        """Undo `watch`; the feed goes with its last watcher."""
        feed, subscription.feed = subscription.feed, None
        if feed is None:
            return
        feed.remove(subscription)
        if not feed.watchers:
            self._feeds.pop(feed.root.hex, None)
            self._told.pop(feed.root.hex, None)
            publisher.unmark(feed.root.hex)
            self._link.leave(feed)
        self._stirred.set()

    def read_now(self, root: UUID) -> None:
        """Read the rows of a tree now, if it is watched here."""
        feed = self._feeds.get(root.hex)
        if feed is not None:
            feed.read_now()
            self._stirred.set()

    def note_failure(self, error: Exception) -> None:
        """Log that the rows could not be asked: once per outage, however many sockets ask."""
        if not isinstance(error, DatabaseError | InterfaceError):
            logger.error("A live view failed to ask the rows; it tries again.", exc_info=error)
        elif self._is_reading_well:
            logger.warning(
                "Live views cannot read the rows: %s: %s. Browsers keep what they have and "
                "get the rest when the database answers again.",
                type(error).__name__,
                error,
            )
            self._is_reading_well = False

    # --- services

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as services:
                    services.create_task(self._link.run())
                    services.create_task(self._read_for_ever())
            except* Exception:
                logger.exception("A service of the live views failed; it is started again.")
                await asyncio.sleep(RETRY_SECONDS)

    async def _read_for_ever(self) -> None:
        while True:
            await self._sleep_until_due()
            now = self._clock()
            due = [feed for feed in self._feeds.values() if feed.read_at <= now][:FEEDS_PER_READ]
            wants = [(feed, feed.want()) for feed in due]
            try:
                found = await self._reads.run(_on_session, snapshot.read, [w for _, w in wants])
            except Exception as error:  # noqa: BLE001 - whatever ails the database, the hub must outlive it
                self.note_failure(error)
                for feed in due:
                    feed.read_now()
                await asyncio.sleep(RETRY_SECONDS * (1 + random.random()))
                continue
            self._is_reading_well = True
            for feed, want in wants:
                before = feed.version
                every = LIVE_READ_SECONDS if feed.live else BLIND_READ_SECONDS
                feed.take_rows(want, found[want.root], every)
                self._tell_newcomers(feed)
                if feed.version != before:
                    self._tell(feed)

    async def _sleep_until_due(self) -> None:
        while True:
            self._stirred.clear()
            due_at = min((feed.read_at for feed in self._feeds.values()), default=None)
            wait = None if due_at is None else due_at - self._clock()
            if wait is not None and wait <= 0:
                return
            try:
                async with asyncio.timeout(wait):
                    await self._stirred.wait()
            except TimeoutError:
                return

    # --- events

    def _take_from_any_thread(self, message: Message) -> None:
        root = root_of(message)
        if root in self._feeds:
            with suppress(RuntimeError):  # a closed loop has nobody left to be told
                self._loop.call_soon_threadsafe(self._take_event, root, message)

    def _take_event(self, root: str, message: Message) -> None:
        feed = self._feeds.get(root)
        if feed is None:
            return
        if feed.take_event(message):
            self._tell(feed)
        if feed.read_at <= self._clock():
            self._stirred.set()

    def _set_live(self, feed: Feed, live: bool) -> None:
        if live and not feed.reads_done:
            feed.read_now()  # the barrier has been passed
        elif live != feed.live and not live:
            feed.read_now()  # blind from now on
        if live != feed.live:
            feed.live = live
            self._tell(feed)
        self._stirred.set()

    # --- telling

    def _tell_newcomers(self, feed: Feed) -> None:
        for watcher in feed.watchers:
            if watcher.is_waiting_to_start:
                watcher.wake()

    def _tell(self, feed: Feed) -> None:
        """Wake the watchers at once, then at most every quarter of a second."""
        root, now = feed.root.hex, self._clock()
        told_at = self._told.get(root, 0.0)
        if told_at > now:
            return  # somebody will be told then
        tell_at = max(now, told_at + BATCH_SECONDS)
        self._told[root] = tell_at
        self._loop.call_later(tell_at - now, self._wake_watchers, feed)

    def _wake_watchers(self, feed: Feed) -> None:
        for watcher in feed.watchers:
            watcher.wake()


def _on_session(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run on a lane, which keeps its session; one that has gone bad is replaced."""
    try:
        return fn(*args, **kwargs)
    except (InterfaceError, OperationalError):
        connections.close_all()
        return fn(*args, **kwargs)

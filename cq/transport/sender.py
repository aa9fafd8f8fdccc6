"""
The sending half of the dispatcher: what waits for the layers, and the order it leaves in.

Bells and events enter from any thread through bounded inboxes. Each sender takes what has
piled up while its previous send was under way, so a burst becomes few messages and a
single bell leaves at once. A failing layer is tried again after growing waits; within the
bounds everything is kept meanwhile, and nobody outside notices.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from concurrent.futures import Future
from typing import Generic, TypeVar

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from cq.errors import InvalidOption
from cq.transport.inbox import Inbox
from cq.transport.messages import MAX_IDS, Message, channel_name, run_message
from cq.transport.outage import Outage
from cq.transport.own_layer import make_layer

SEND_TIMEOUT = 2.0
# An unreachable server must not hold up the exit of a process.
CONNECT_TIMEOUT = 0.25
# Sending takes the GIL from the thread that enqueues: a moment between two messages turns
# a stream of single tasks into a few full bells, and is too short to be seen in a latency.
GAP = 0.002
MAX_RINGS = 4096
MAX_WAITING_IDS = 5 * MAX_IDS
MAX_EVENTS = 1000
EVENTS_AT_ONCE = 16

Bell = tuple[str, list[str]]
Event = tuple[str, Message]
T = TypeVar("T")


class Sender(ABC, Generic[T]):
    """What bells and events have in common: one layer, its outages, waiting, flushing."""

    def __init__(self, alias: str, what: str, bound: int, loop: asyncio.AbstractEventLoop) -> None:
        self._alias = alias
        self._loop = loop
        self._layer: BaseChannelLayer | None = None
        self._rung = asyncio.Event()
        self._hurry = asyncio.Event()
        self._flushes: list[Future[bool]] = []
        self.inbox: Inbox[T | Future[bool]] = Inbox(bound, loop, self._rung.set)
        self.outage = Outage(f"The {what} layer {alias!r}")
        # A client may swallow a cancellation that comes just as it gets its answer.
        self.stopping = False
        self.sent = 0
        self.dropped = 0

    @abstractmethod
    def keep(self, item: T) -> None:
        """Add an item to what waits to be sent, within a bound."""

    @abstractmethod
    def has_waiting(self) -> bool:
        """Whether anything waits to be sent."""

    @abstractmethod
    async def send_next(self, layer: BaseChannelLayer) -> None:
        """Send the next of what waits."""

    def flush(self) -> Future[bool]:
        """Ask from any thread for everything put so far; true when all of it has left."""
        flush: Future[bool] = Future()
        self.inbox.put(flush)
        self._loop.call_soon_threadsafe(self._hurry.set)
        return flush

    async def run(self) -> None:
        """Send until cancelled, and told by `stopping` that the cancellation was meant."""
        try:
            while not self.stopping:
                self._collect()
                if self.has_waiting():
                    await self._try_next()
                else:
                    self._settle(True)
                    await self._sleep_until_rung()
        finally:
            # Whoever rings from now on wakes a closed loop, and learns so by its exception.
            self.inbox.asleep = True
            self._collect()
            self._settle(False)

    async def _try_next(self) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.send_next(self._own_layer())
        except Exception as error:  # noqa: BLE001 - a layer may raise anything; this thread must live
            self._settle(False)
            await self._pause(self.outage.failed(error))
            return
        self.outage.over()
        if not self.has_waiting():
            await self._pause(GAP)

    def _own_layer(self) -> BaseChannelLayer:
        if self._layer is None:
            self._layer = make_layer(self._alias, connect_timeout=CONNECT_TIMEOUT)
        return self._layer

    def _collect(self) -> None:
        self._hurry.clear()
        for item in self.inbox.take():
            if isinstance(item, Future):
                self._flushes.append(item)
            else:
                self.keep(item)

    def _settle(self, delivered: bool) -> None:
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            flush.set_result(delivered)

    async def _sleep_until_rung(self) -> None:
        self._rung.clear()
        self.inbox.asleep = True
        if not self.inbox:
            await self._rung.wait()
        self.inbox.asleep = False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass


class BellSender(Sender[Bell]):
    """Rings the task layer: one message of up to 100 ids per queue for all that piled up."""

    def __init__(self, alias: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(alias, "task", MAX_RINGS, loop)
        self._ids: defaultdict[str, list[str]] = defaultdict(list)
        self.full = 0

    def keep(self, item: Bell) -> None:
        queue, ids = item
        room = MAX_WAITING_IDS - len(self._ids[queue])
        self._ids[queue].extend(ids[:room])
        # Any bell makes a worker look at every due row, so the ids beyond say nothing new.
        self.dropped += max(0, len(ids) - room)

    def has_waiting(self) -> bool:
        return bool(self._ids)

    async def send_next(self, layer: BaseChannelLayer) -> None:
        queue, ids = next(iter(self._ids.items()))
        try:
            await layer.send(channel_name(queue), run_message(ids[:MAX_IDS]))
            self.sent += 1
        except ChannelFull:
            # The channel holds more bells than anybody has answered: one more is no loss.
            self.full += 1
        except InvalidOption:
            self.dropped += len(ids)
            ids.clear()
        del ids[:MAX_IDS]
        del self._ids[queue]
        if ids:
            self._ids[queue] = ids


class GroupSender(Sender[Event]):
    """Sends events to groups of the browser layer: in order per group, several groups at once."""

    def __init__(self, alias: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(alias, "browser", MAX_EVENTS, loop)
        self._events: deque[Event] = deque()

    def keep(self, item: Event) -> None:
        if len(self._events) == MAX_EVENTS:
            self._events.popleft()
            self.dropped += 1
        self._events.append(item)

    def has_waiting(self) -> bool:
        return bool(self._events)

    async def send_next(self, layer: BaseChannelLayer) -> None:
        batch: dict[str, Message] = {}
        while self._events and len(batch) < EVENTS_AT_ONCE and self._events[0][0] not in batch:
            group, message = self._events.popleft()
            batch[group] = message
        answers = await asyncio.gather(
            *(layer.group_send(group, message) for group, message in batch.items()),
            return_exceptions=True,
        )
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        self.sent += len(batch) - len(errors)
        # An event that failed is not sent again: it may be the event, and watchers re-read rows.
        self.dropped += len(errors)
        if errors:
            raise errors[0]

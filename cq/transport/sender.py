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
from contextlib import suppress
from typing import Generic, TypeVar

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from cq.errors import InvalidOption
from cq.failpoints import reached
from cq.transport.groups import gather
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
GATHER = 0.05

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

    def patience(self) -> float:
        """Seconds for which what waits should gather first."""
        return 0.0

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
                if not self.has_waiting():
                    self._settle(True)
                    await self._sleep_until_rung()
                elif (seconds := self.patience()) > 0:
                    await self._sleep_until_rung(seconds)
                else:
                    await self._try_next()
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

    async def _sleep_until_rung(self, longest: float | None = None) -> None:
        self._rung.clear()
        self.inbox.asleep = True
        if not self.inbox:
            with suppress(TimeoutError):
                async with asyncio.timeout(longest):
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
            reached("before_send")
            await layer.send(channel_name(queue), run_message(ids[:MAX_IDS]))
            reached("after_send")
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
    """
    Sends events to groups of the browser layer: in order per group, several groups at once.

    The first event of a group leaves at once; what follows within 50 ms leaves together, so
    that a tree of many small tasks costs its worker twenty messages a second, not thousands.
    """

    def __init__(self, alias: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(alias, "browser", MAX_EVENTS, loop)
        self._waiting: dict[str, deque[Message]] = {}
        self._free_at: dict[str, float] = {}
        self._count = 0

    def keep(self, item: Event) -> None:
        group, message = item
        waiting = self._waiting.setdefault(group, deque())
        self._count -= len(waiting)
        gather(waiting, message)
        self._count += len(waiting)
        if self._count > MAX_EVENTS:
            self._take(next(iter(self._waiting)))
            self.dropped += 1

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def patience(self) -> float:
        if self._ready():
            return 0.0
        return min(self._free_at[group] for group in self._waiting) - self._loop.time()

    def _ready(self) -> list[str]:
        now = self._loop.time()
        self._free_at = {group: at for group, at in self._free_at.items() if at > now}
        # A flush waits for nothing.
        return [group for group in self._waiting if self._flushes or group not in self._free_at]

    def _take(self, group: str) -> Message:
        """Take the oldest event of a group, which then goes to the end of the queue of groups."""
        waiting = self._waiting.pop(group)
        message = waiting.popleft()
        if waiting:
            self._waiting[group] = waiting
        self._count -= 1
        return message

    async def send_next(self, layer: BaseChannelLayer) -> None:
        batch = {group: self._take(group) for group in self._ready()[:EVENTS_AT_ONCE]}
        self._free_at |= dict.fromkeys(batch, self._loop.time() + GATHER)
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

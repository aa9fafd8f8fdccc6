"""
The worker's own event loop, when a worker lives in this process.

Bells reach it without any layer. Events of an in-memory browser layer leave through it as
well, because such a layer exists only on the loop of the server that shares it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from channels.layers import get_channel_layer

from cq.transport.inbox import Inbox
from cq.transport.messages import MAX_IDS, Message, run_message
from cq.transport.sender import MAX_EVENTS, MAX_RINGS, Bell, Event

OnBell = Callable[[Message], object]

logger = logging.getLogger("cq.transport")


class AttachedLoop:
    """A loop of this process that hears bells, and may lend its in-memory layer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_bell: OnBell,
        queues: Collection[str] | None,
    ) -> None:
        self.loop = loop
        self._on_bell = on_bell
        self._queues = None if queues is None else frozenset(queues)
        self._bells: Inbox[Bell] = Inbox(MAX_RINGS, loop, self._deliver)
        self._events: Inbox[tuple[str, Event]] = Inbox(MAX_EVENTS, loop, self._start_sending)
        self._sending: asyncio.Task[None] | None = None
        self.rung = 0

    def ring(self, queue: str, ids: list[str]) -> None:
        """Ring the worker if it takes the queue; from any thread, once per burst."""
        if self._queues is None or queue in self._queues:
            self._bells.put((queue, ids))

    def send(self, alias: str, event: Event) -> None:
        """Send an event through the layer that the attached loop shares; from any thread."""
        self._events.put((alias, event))

    def close(self) -> None:
        """Ring and send no more; called on the attached loop."""
        self._on_bell = _ignore
        if self._sending is not None:
            self._sending.cancel()

    def _deliver(self) -> None:
        self._bells.asleep = True
        ids = [task_id for _, ids in self._bells.take() for task_id in ids]
        self.rung += 1
        self._on_bell(run_message(ids[:MAX_IDS]))

    def _start_sending(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = self.loop.create_task(self._send_events())

    async def _send_events(self) -> None:
        while True:
            for alias, (group, message) in self._events.take():
                await self._send_event(alias, group, message)
            self._events.asleep = True
            if not self._events:
                return
            self._events.asleep = False

    async def _send_event(self, alias: str, group: str, message: Message) -> None:
        layer = get_channel_layer(alias)
        try:
            if layer is not None:
                await layer.group_send(group, message)
        except Exception:  # an event that cannot be sent must not silence those behind it
            logger.exception("An event for the group %s could not be sent.", group)


def _ignore(message: Message) -> None:
    """Stand in for the worker that has gone, for a bell already on its way."""

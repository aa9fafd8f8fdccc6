"""
The control receiver: hears the group of all workers on the browser layer.

Watchers announce there which trees they look at, and a revoke asks workers to look at
their tokens at once instead of at the next heartbeat. All of it only saves time; losing
every message loses nothing else.
"""

import asyncio
from collections.abc import Callable

from channels.layers import BaseChannelLayer

from cq.progress import publisher
from cq.transport.groups import WORKERS_GROUP
from cq.transport.messages import Message
from cq.transport.outage import Outage
from cq.transport.own_layer import make_layer
from cq.worker.service import ended

REJOIN_SECONDS = 30.0


class Control:
    """Listens for control messages and hands them to `on_message`, on the loop."""

    def __init__(self, alias: str, on_message: Callable[[Message], object]) -> None:
        self._alias = alias
        self._on_message = on_message
        self._outage = Outage("Listening for watchers")

    async def run(self) -> None:
        """Listen for ever; ends by cancellation."""
        layer = make_layer(self._alias)
        while True:
            try:
                await self._attend(layer)
            except Exception as problem:  # noqa: BLE001 - a layer may raise anything; the worker must outlive it
                await asyncio.sleep(self._outage.failed(problem))

    async def _attend(self, layer: BaseChannelLayer) -> None:
        """Listen until the layer fails, and raise what it raised."""
        loop = asyncio.get_running_loop()
        channel = await layer.new_channel("cq-control")  # type: ignore[call-arg]
        tasks = [
            loop.create_task(self._rejoin(layer, channel)),
            loop.create_task(self._listen(layer, channel)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*tasks)
        for task in done:
            task.result()

    async def _rejoin(self, layer: BaseChannelLayer, channel: str) -> None:
        # Memberships expire, and vanish with a restarted Redis.
        while True:
            await layer.group_add(WORKERS_GROUP, channel)
            publisher.ask()
            await asyncio.sleep(REJOIN_SECONDS)

    async def _listen(self, layer: BaseChannelLayer, channel: str) -> None:
        while True:
            message = await layer.receive(channel)
            self._outage.over()
            self._on_message(message)

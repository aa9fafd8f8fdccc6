"""
The receiver: one coroutine per queue that turns messages on the task layer into bells.

It decides nothing and holds no slot, so a message that is lost, doubled, late or forged
costs at most a look at the rows. Whatever the layer raises is counted and waited out; a
receive in flight is never cancelled but at the end of the process, because a cancelled
one may take its message along.
"""

import asyncio
import time
from collections.abc import Callable

from channels.layers import BaseChannelLayer

from cq.failpoints import reached
from cq.layers import RedisLayer
from cq.transport.messages import Message, channel_name
from cq.transport.outage import Outage
from cq.worker.service import ended

# A receive that timed out after waiting at least this long has waited for a message, not
# for the server: redis-py 8 ends an idle blocking pop of the stock layer after five seconds.
IDLE = 1.0


class Receiver:
    """Listens on the channel of one queue and calls `on_bell(message)` for what arrives."""

    def __init__(
        self, layer: BaseChannelLayer, queue: str, on_bell: Callable[[Message], object]
    ) -> None:
        self._layer = layer
        self._channel = channel_name(queue)
        self._on_bell = on_bell
        self._stopping = asyncio.Event()
        self.outage = Outage(f"Listening on {self._channel!r}")
        self.received = 0
        self.garbage = 0
        self.idle_timeouts = 0
        self.handed_back = 0

    async def run(self) -> None:
        """
        Listen until `stop()`; cancel it only when the process ends.

        After `stop()` it still waits for the receive in flight, and hands that message back
        to the layer for another worker.
        """
        listening = asyncio.get_running_loop().create_task(self._listen())
        try:
            await asyncio.wait([listening])
            listening.result()
        finally:
            await ended(listening)

    async def _listen(self) -> None:
        while not self._stopping.is_set():
            since = time.monotonic()
            try:
                messages = await self._receive()
            except Exception as error:  # noqa: BLE001 - a layer may raise anything; the worker must outlive it
                await self._failed(error, time.monotonic() - since)
                continue
            self.outage.over()
            for message in messages:
                await self._received(message)

    async def _receive(self) -> "list[Message]":
        """What has arrived: all of it at once, where the layer can do that."""
        if isinstance(self._layer, RedisLayer):
            return await self._layer.receive_many(self._channel)
        return [await self._layer.receive(self._channel)]

    def stop(self) -> None:
        """Ring no more."""
        self._stopping.set()

    async def _received(self, message: object) -> None:
        self.received += 1
        try:
            reached("after_receive")
            if not isinstance(message, dict):
                self.garbage += 1
            elif self._stopping.is_set():
                await self._layer.send(self._channel, message)
                self.handed_back += 1
            else:
                self._on_bell(message)
        except Exception as error:  # noqa: BLE001 - neither a bell that fails may deafen the worker
            await self._failed(error, 0.0)

    async def _failed(self, error: Exception, waited: float) -> None:
        if waited >= IDLE and _is_timeout(error):
            self.idle_timeouts += 1
            return
        try:
            async with asyncio.timeout(self.outage.failed(error)):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _is_timeout(error: Exception) -> bool:
    # By name: redis-py has a TimeoutError of its own, and the layer may use any client.
    return any(kind.__name__ == "TimeoutError" for kind in type(error).__mro__)

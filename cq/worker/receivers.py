"""
The receivers of a worker: one for each queue it takes tasks from.

A worker of named queues listens to those. One of all queues listens to those that its
task functions name, and to any other from the first task on that it finds there.
"""

import asyncio

from channels.layers import BaseChannelLayer

from cq.definition import registry
from cq.transport.attached import OnBell
from cq.transport.own_layer import make_layer
from cq.worker.receiver import Receiver
from cq.worker.service import outlive


class Receivers:
    """Listens for bells on the task layer; used on the worker's loop alone."""

    def __init__(self, alias: str, queues: tuple[str, ...] | None, on_bell: OnBell) -> None:
        self._alias = alias
        self._is_open = queues is None
        self._on_bell = on_bell
        self._receivers: dict[str, Receiver] = {}
        self._layer: BaseChannelLayer | None = None
        self._group: asyncio.TaskGroup | None = None
        self._queues = queues if queues is not None else _queues_of_functions()

    async def run(self) -> None:
        """Listen for ever; ends by cancellation."""
        self._receivers = {}
        self._layer = make_layer(self._alias)
        async with asyncio.TaskGroup() as self._group:
            for queue in self._queues:
                self._listen(queue)
            await asyncio.Event().wait()

    def hear(self, queue: str) -> None:
        """Listen to this queue too, where tasks were found, if all queues are served."""
        if self._is_open and self._group is not None and queue not in self._receivers:
            self._listen(queue)

    def _listen(self, queue: str) -> None:
        if self._layer is not None and self._group is not None:
            receiver = self._receivers[queue] = Receiver(self._layer, queue, self._on_bell)
            name = f"receiver of {queue!r}"
            self._group.create_task(outlive(name, receiver.run), name=name)

    def stop(self) -> None:
        """Ring no more: the worker drains."""
        self._is_open = False
        for receiver in self._receivers.values():
            receiver.stop()


def _queues_of_functions() -> tuple[str, ...]:
    found = {function.options.queue for function in registry.functions()}
    return tuple(sorted(found | {"default"}))

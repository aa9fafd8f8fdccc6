"""
The host behind Channels' stock `runworker`, which executes cq's tasks too, one by one.

It is a worker without a claimer: it starts with the first bell, claims the ids that bells
name, and leaves polling, delayed tasks and retries to a real worker beside it.
"""

import asyncio
import contextvars
import logging
from typing import Any

from django.db import Error

from cq import conf
from cq.transport.messages import channel_name
from cq.worker.consumer import Host, TaskConsumer
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner

logger = logging.getLogger("cq.worker")

_RETRY_SECONDS = 1.0


class SerialHost:
    """The runner of a process that runs Channels' `runworker`."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def find(self) -> Host:
        """The runner, started at the first call; waits for a database that is not there yet."""
        async with self._starting:
            while self._runner is None or self._task is None or self._task.done():
                try:
                    await self._start()
                except Error as problem:
                    logger.warning("Tasks wait for the database: %s", problem)
                    await asyncio.sleep(_RETRY_SECONDS)
        return self._runner

    async def _start(self) -> None:
        logger.warning(
            "Tasks are executed by Channels' runworker: one at a time, and only those that a "
            "bell names. Run ./manage.py cq_runworker for everything else."
        )
        loop = asyncio.get_running_loop()
        self._runner = Runner(WorkerOptions.from_settings(scheduler=False, claims=False))
        # Owned here to the end of the process: runworker gives its consumers no end to hear of.
        self._task = loop.create_task(
            self._runner.run(), name="cq serial host", context=contextvars.Context()
        )
        ready = loop.create_task(self._runner.ready.wait())
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            self._task.result()


_hosts: dict[Any, SerialHost] = {}


async def find_host() -> Host:
    """The host of the running loop."""
    loop = asyncio.get_running_loop()
    return await _hosts.setdefault(loop, SerialHost()).find()


def serial_consumers() -> dict[str, Any]:
    """The applications for `ChannelNameRouter`: a TaskConsumer for the channel of each queue."""
    TaskConsumer.find_host = staticmethod(find_host)
    queues = conf.current().queues or ("default",)
    return {channel_name(queue): TaskConsumer.as_asgi() for queue in queues}

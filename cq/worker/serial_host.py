"""
The host behind Channels' stock `runworker`, which executes cq's tasks too, one by one.

It is a worker without a claimer: it starts with the first bell, claims the ids that bells
name, and leaves polling, delayed tasks and retries to a real worker beside it.
"""

import asyncio
import logging
from typing import Any

from cq import conf
from cq.transport.messages import channel_name
from cq.worker.consumer import Host, TaskConsumer
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner

logger = logging.getLogger("cq.worker")


class SerialHost:
    """The runner of a process that runs Channels' `runworker`."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._group = asyncio.TaskGroup()
        self._starting = asyncio.Lock()

    async def find(self) -> Host:
        """The runner, started at the first call."""
        async with self._starting:
            if self._runner is None:
                logger.warning(
                    "Tasks are executed by Channels' runworker: one at a time, and only those "
                    "that a bell names. Run ./manage.py cq_runworker for everything else."
                )
                options = WorkerOptions.from_settings(scheduler=False, claims=False)
                self._runner = Runner(options)
                await self._group.__aenter__()
                self._group.create_task(self._runner.run(), name="cq serial host")
                await self._runner.ready.wait()
        return self._runner


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

"""
The consumer: the Channels class through which every claimed task passes.

Under `cq_runworker` a claimer hands it tasks that are claimed already, and `dispatch`
runs them side by side. Under Channels' stock `runworker` it gets the bells themselves,
and claims the ids they name, one at a time.
"""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol

from channels.consumer import AsyncConsumer

from cq.models.transitions import Claimed
from cq.transport.messages import ids_of

EXECUTE = "cq.execute"
RUN = "cq.run"


class Host(Protocol):
    """Whoever owns the slots that a consumer runs tasks in."""

    async def execute(self, claimed: Claimed) -> None:
        """Run a claimed task and see to its completion."""
        ...

    async def run_named(self, ids: list[Any]) -> None:
        """Claim the tasks of these ids one by one, and run what could be claimed."""
        ...


class TaskConsumer(AsyncConsumer):
    """Executes tasks; `dispatched` counts the claimed ones of this process."""

    dispatched: ClassVar[int] = 0
    find_host: ClassVar[Callable[[], Awaitable[Host]] | None] = None
    """How a consumer made by a stock runworker finds the host of its process."""

    def __init__(self, host: Host | None = None) -> None:
        self._host = host

    async def dispatch(self, message: dict[str, Any]) -> None:
        """
        Execute a claimed task, or answer a bell.

        Replaces the stock dispatch, which hops through one shared thread after every
        message to close connections; the executor sees to the connections of each task.
        """
        if message["type"] == EXECUTE:
            TaskConsumer.dispatched += 1
            await (await self._found_host()).execute(message["claimed"])
        elif message["type"] == RUN:
            await (await self._found_host()).run_named(ids_of(message))

    async def _found_host(self) -> Host:
        if self._host is None:
            find = type(self).find_host
            if find is None:
                raise RuntimeError(
                    "A TaskConsumer was reached outside of a worker. Route the channel with "
                    "cq.routing.channel_routing, or run ./manage.py cq_runworker."
                )
            self._host = await find()
        return self._host

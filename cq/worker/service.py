"""
Services: the loops beside the tasks, each of which must outlive its own faults.

One that fails takes neither the worker nor the tasks along: it is started again, a little
later each time. Outages of the database or of a layer are the services' own business;
what arrives here is a defect, and is logged with its traceback.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger("cq.worker")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_CANCEL_AGAIN = 0.1


async def outlive(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a service until it returns, however often it fails; ends by cancellation."""
    pause = _FIRST_PAUSE
    while True:
        try:
            await run()
            return
        except Exception:
            logger.exception("The %s failed. It goes on in %g s.", name, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """
    Cancel tasks until they have ended; what they raise is left to others to look at.

    Once may not be enough: up to Python 3.11 `wait_for`, in which clients send their
    commands, swallows a cancellation that comes just as it ends.
    """
    was_cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=_CANCEL_AGAIN)
        except asyncio.CancelledError:
            was_cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: asyncio need not complain that nobody looked
    if was_cancelled:
        raise asyncio.CancelledError

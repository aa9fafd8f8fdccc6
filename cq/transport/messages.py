"""
The messages on the task layer, and the channels they travel on.

A run message names tasks by id and carries nothing else; whoever reads one believes
nothing but "look at the rows". What enters from the layer may be garbage or forged, so
reading never raises: it drops what it does not know and counts it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID

from cq.definition.options import check_queue

VERSION = 1
RUN = "cq.run"
CONTROL = "cq.control"
CHANNEL = "cq-tasks"
DEFAULT_QUEUE = "default"
MAX_IDS = 100

Message = dict[str, Any]

_HEX = re.compile(r"[0-9a-f]{32}\Z")
_garbage = 0


@lru_cache(maxsize=1024)
def channel_name(queue: str) -> str:
    """Name the channel of a queue; "default" keeps the historic name of 2019."""
    check_queue(queue)
    return CHANNEL if queue == DEFAULT_QUEUE else f"{CHANNEL}.{queue}"


def run_message(ids: Iterable[str]) -> Message:
    """Make the doorbell for some tasks, named by the hex form of their ids."""
    return {"type": RUN, "v": VERSION, "ids": list(ids)}


def control_message(kind: str, **data: Any) -> Message:
    """Make a word from one process to the others: a kind, and what it is about."""
    return {**data, "type": CONTROL, "v": VERSION, "kind": kind}


def ids_of(message: object) -> list[UUID]:
    """
    Read the ids of a run message, in order and at most 100 of them.

    Never raises. What is not an id is dropped and counted in `garbage()`; a message of a
    newer version is read for what it has in common with this one.
    """
    ids = message.get("ids") if isinstance(message, dict) else None
    if not isinstance(ids, list | tuple):
        _count(1)
        return []
    known = [UUID(hex=item) for item in ids[:MAX_IDS] if isinstance(item, str) and _HEX.match(item)]
    _count(len(ids) - len(known))
    return known


def garbage() -> int:
    """How many entries of messages this process has dropped because they were no ids."""
    return _garbage


def _count(dropped: int) -> None:
    global _garbage
    _garbage += dropped

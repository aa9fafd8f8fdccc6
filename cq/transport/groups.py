"""
Groups: the names that live news travels under, and the messages that travel.

Per watched root one group of the browser layer, named by the hex form of the root's id;
one group that every worker listens to, where watchers announce themselves; one that every
watching process listens to, where a worker that starts asks who is there. All of it is a
hint: the rows decide, and a reader of any message must expect garbage.
"""

import re
from collections.abc import Iterable, MutableSequence
from typing import Any
from uuid import UUID

from cq.transport.messages import VERSION, Message, control_message

EVENT = "cq.event"
WORKERS_GROUP = "cq.workers"
WATCHERS_GROUP = "cq.watchers"
AUDIENCE = "audience"
ASK = "ask"
MAX_ROOTS = 100
LINES_PER_EVENT = 200
CHARS_PER_EVENT = 64 * 1024
NODES_PER_EVENT = 200

_HEX = re.compile(r"[0-9a-f]{32}\Z")


def root_group(root: UUID | str) -> str:
    """Name the group of one tree; takes the root's id or its hex form."""
    return f"cq.root.{root.hex if isinstance(root, UUID) else root}"


def event_message(root: str, kind: str, origin: str, **data: Any) -> Message:
    """Make the news of one tree; `origin` names the process that tells it."""
    return {**data, "type": EVENT, "v": VERSION, "root": root, "kind": kind, "origin": origin}


def gather(waiting: MutableSequence[Message], message: Message) -> None:
    """
    Add an event to those that wait for one group, as a part of another where it can be.

    Lines follow each other, and may come before a state but never after it. What grows
    stays as small as the publisher makes events.
    """
    kind = kind_of(message)
    for place in reversed(range(len(waiting))):
        both = _merged(waiting[place], message)
        if both is not None:
            waiting[place] = both
            return
        if kind != "log" or kind_of(waiting[place]) == "log":
            break
    waiting.append(message)


def _merged(first: Message, second: Message) -> Message | None:
    kind = kind_of(first)
    if kind != kind_of(second) or first.get("origin") != second.get("origin"):
        return None
    if kind == "log":
        lines = [*first["lines"], *second["lines"]]
        chars = sum(len(line["message"]) for line in lines)
        is_small = len(lines) <= LINES_PER_EVENT and chars <= CHARS_PER_EVENT
        return {**first, "lines": lines} if is_small else None
    if kind == "state":
        nodes = [*first["nodes"], *second["nodes"]]
        return {**first, "nodes": nodes} if len(nodes) <= NODES_PER_EVENT else None
    return first if kind in ("end", "look") else None


def audience_messages(roots: Iterable[str]) -> list[Message]:
    """Make the announcements that somebody watches these roots, at most 100 in each."""
    names = list(roots)
    return [
        control_message(AUDIENCE, roots=names[start : start + MAX_ROOTS])
        for start in range(0, len(names), MAX_ROOTS)
    ]


def ask_message() -> Message:
    """Make the question of a worker that has just started: who is watching what?"""
    return control_message(ASK)


def roots_of(message: object) -> list[str]:
    """Read the roots of an announcement; never raises, drops what is not a root."""
    roots = message.get("roots") if isinstance(message, dict) else None
    if not isinstance(roots, list | tuple):
        return []
    return [root for root in roots[:MAX_ROOTS] if isinstance(root, str) and _HEX.match(root)]


def root_of(message: object) -> str | None:
    """Read which tree an event is about; never raises."""
    root = message.get("root") if isinstance(message, dict) else None
    return root if isinstance(root, str) and _HEX.match(root) else None


def kind_of(message: object) -> str:
    """Read what a control message or an event is, "" for garbage."""
    kind = message.get("kind") if isinstance(message, dict) else None
    return kind if isinstance(kind, str) else ""

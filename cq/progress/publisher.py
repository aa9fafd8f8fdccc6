"""
The publisher: live news of watched trees, told after the rows are committed.

What enters is what a worker has just recorded (lines, states, the end of a tree); what
leaves are events, straight to the watchers of this process and through the browser layer
to those of others. Only trees that somebody watches cost more than one set lookup: a
watching process announces its roots, an announcement is good for 75 seconds, and a worker
that starts asks. Events are hints. Whoever misses one finds everything in the rows.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict
from uuid import UUID, uuid4

from cq import conf
from cq.definition.status import Status
from cq.transport import dispatcher
from cq.transport.groups import (
    ASK,
    AUDIENCE,
    CHARS_PER_EVENT,
    LINES_PER_EVENT,
    NODES_PER_EVENT,
    WATCHERS_GROUP,
    ask_message,
    event_message,
    kind_of,
    root_group,
    roots_of,
)
from cq.transport.messages import Message
from cq.transport.own_layer import crosses_processes

ANNOUNCEMENT_SECONDS = 75.0

_WORDS = {status: status.name.lower() for status in Status}

ORIGIN = uuid4().hex
"""Names this process in its events, so that its own watchers hear each of them once."""

Node = dict[str, Any]
"""A patch of one task's state: its id, and the facts that changed."""

Sink = Callable[[Message], None]


class Line(TypedDict):
    """A log line as it travels; `seq` is None while the line is not yet recorded."""

    seq: int | None
    task: str
    name: str
    attempt: int
    level: int
    message: str
    at: str


def line(
    *,
    seq: int | None,
    task: UUID,
    name: str,
    attempt: int,
    level: int,
    message: str,
    at: datetime,
) -> Line:
    """Make the travelling form of a log line."""
    return Line(
        seq=seq,
        task=str(task),
        name=name,
        attempt=attempt,
        level=level,
        message=message,
        at=moment(at),
    )


def node(task: UUID, **facts: Any) -> Node:
    """
    Make a patch of a task's state; only the facts that are given will change.

    Facts are `status` (a Status or its letter), `attempt`, `started`, `finished`, `due`,
    `children_open`, `children_failed`, `progress` ({done, total, message}), `name`,
    `parent`, `previous`. Moments, ids and statuses are spelled for the wire here.
    """
    patch: Node = {"id": str(task)}
    for name, value in facts.items():
        if name == "status":
            value = _WORDS[value]
        elif isinstance(value, datetime):
            value = moment(value)
        elif isinstance(value, UUID):
            value = str(value)
        patch[name] = value
    return patch


def moment(at: datetime) -> str:
    """Spell a moment: ISO 8601 in UTC with a Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Audience:
    """
    Who watches what, as far as this process knows. Safe to use from any thread.

    `watched` is the set the engine asks before it does anything for watchers; it may name
    a root for a while after the last watcher left, never the other way round.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.watched: set[str] = set()
        self._clock = clock
        self._lock = threading.Lock()
        self._announced: dict[str, float] = {}
        self._marks: dict[str, int] = {}

    def announce(self, roots: Iterable[str]) -> None:
        """Note that other processes watch these roots for the next 75 seconds."""
        now = self._clock()
        with self._lock:
            for root in roots:
                self._announced[root] = now + ANNOUNCEMENT_SECONDS
                self.watched.add(root)
            for root in [root for root, until in self._announced.items() if until <= now]:
                self._forget(root)

    def mark(self, root: str) -> None:
        """Note that a watcher in this process has come."""
        with self._lock:
            self._marks[root] = self._marks.get(root, 0) + 1
            self.watched.add(root)

    def unmark(self, root: str) -> None:
        """Note that a watcher in this process has left."""
        with self._lock:
            left = self._marks.pop(root, 1) - 1
            if left > 0:
                self._marks[root] = left
            elif root not in self._announced:
                self.watched.discard(root)

    def is_elsewhere(self, root: str) -> bool:
        """Whether another process watches the root, as of now."""
        until = self._announced.get(root)
        if until is None:
            return False
        if until > self._clock():
            return True
        with self._lock:
            self._forget(root)
        return False

    def _forget(self, root: str) -> None:
        self._announced.pop(root, None)
        if root not in self._marks:
            self.watched.discard(root)


_audience = Audience()
_sinks: tuple[Sink, ...] = ()
_sinks_lock = threading.Lock()

mark = _audience.mark
unmark = _audience.unmark


def watched(root: str) -> bool:
    """Whether anybody watches the tree with this root (in hex): one set lookup."""
    return root in _audience.watched


def audience(message: object) -> None:
    """Take an announcement; called with every control message that reaches a worker."""
    if kind_of(message) == AUDIENCE:
        _audience.announce(roots_of(message))


def ask() -> None:
    """Ask every watching process to announce its roots; called when a worker starts."""
    if crosses_processes(conf.current().browser_layer):
        dispatcher.send_group(WATCHERS_GROUP, ask_message())


def is_question(message: object) -> bool:
    """Whether a message is a worker's question who watches what."""
    return kind_of(message) == ASK


def attach(sink: Sink) -> None:
    """Hand every event of this process to `sink` too; it is called from any thread."""
    global _sinks
    with _sinks_lock:
        _sinks = (*_sinks, sink)


def detach(sink: Sink) -> None:
    """Undo `attach`."""
    global _sinks
    with _sinks_lock:
        _sinks = tuple(other for other in _sinks if other is not sink)


def lines(root: str, recorded: Sequence[Line]) -> None:
    """Tell the watchers of a tree about new lines, in order; call it after their commit."""
    if root in _audience.watched:
        for chunk in _portions(recorded):
            _tell(root, "log", lines=chunk)


def states(root: str, nodes: Sequence[Node]) -> None:
    """Tell the watchers of a tree about changed states; call it after their commit."""
    if root in _audience.watched:
        for start in range(0, len(nodes), NODES_PER_EVENT):
            _tell(root, "state", nodes=list(nodes[start : start + NODES_PER_EVENT]))


def end(root: str) -> None:
    """Tell the watchers that nothing of the tree is open any more; they read the rows."""
    if root in _audience.watched:
        _tell(root, "end")


def nudge(root: str) -> None:
    """
    Make every watcher of a tree, known here or not, read the rows now.

    For changes made where nobody listens to announcements: a revoke or a retry in a web
    process or a shell. It costs one message, so it is not for what happens often.
    """
    message = event_message(root, "look", ORIGIN)
    for sink in _sinks:
        sink(message)
    if crosses_processes(conf.current().browser_layer):
        dispatcher.send_group(root_group(root), message)


def _tell(root: str, kind: str, **data: Any) -> None:
    message = event_message(root, kind, ORIGIN, **data)
    for sink in _sinks:
        sink(message)
    if _audience.is_elsewhere(root) and crosses_processes(conf.current().browser_layer):
        dispatcher.send_group(root_group(root), message)


def _portions(recorded: Sequence[Line]) -> Iterator[list[Line]]:
    portion: list[Line] = []
    size = 0
    for entry in recorded:
        size += len(entry["message"])
        if portion and (len(portion) == LINES_PER_EVENT or size > CHARS_PER_EVENT):
            yield portion
            portion, size = [], len(entry["message"])
        portion.append(entry)
    if portion:
        yield portion

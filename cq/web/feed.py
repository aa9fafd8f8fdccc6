"""
The feed: one watched tree as this process knows it, shared by all its watchers.

What enters are events, which may be lost, doubled or forged, and rows, which are the
truth; what leaves are lines in their order without a hole, and the nodes that changed
since a version. Nothing here waits or reads: the hub does, when the feed asks for it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice, takewhile
from typing import Any, Protocol
from uuid import UUID

from cq.definition.status import NOT_STARTED, TERMINAL
from cq.progress.publisher import Line, Node
from cq.transport.messages import Message
from cq.web.protocol import Shared
from cq.web.snapshot import MAX_NODES, Rows, Want

KEPT_LINES = 1000
KEPT_CHARS = 1024 * 1024
NEVER = float("inf")
LOOKS = (0.1, 0.3, 1.0, 3.0)
"""Seconds after a subscription at which rows are read again: the workers may not know yet."""

COUNT_SECONDS = 0.5
"""Seconds until the rows are read for what events do not tell: counters, new tasks."""

_ENDED = frozenset(status.name.lower() for status in TERMINAL)
_NOT_STARTED = frozenset(status.name.lower() for status in NOT_STARTED)
_IDENTITY = {"name", "status", "parent"}
_RANK = {"pending": 0, "queued": 1, "running": 2, "waiting": 3, "retry": 3}


class Watcher(Protocol):
    """What a feed must know of one that watches it."""

    id: UUID
    first_read: int

    @property
    def is_waiting_to_start(self) -> bool:
        """Whether it has not been told anything yet."""

    @property
    def wants_log(self) -> bool:
        """Whether it may see the lines."""

    @property
    def wants_tree(self) -> bool:
        """Whether it may see more than the task it named."""

    def wake(self) -> None:
        """There may be news."""

    def show(self, unrecorded: list[Line]) -> None:
        """Take lines that are not recorded yet."""


class Feed:
    """
    The lines and nodes of one tree.

    `rows_at` and `lines_at` say when the rows, or the lines alone, should be read next.
    A watcher may start once the read numbered `first_read` is among the `reads_done`.
    """

    def __init__(self, root: UUID, clock: Callable[[], float]) -> None:
        self.root = root
        self.watchers: set[Watcher] = set()
        self.wants_log = False
        self.wants_tree = False
        self.seq = 0
        self.version = 0
        self.counts: list[dict[str, Any]] | None = None
        self.truncated = False
        self.ended = False
        self.gone = False
        self.moved = False
        self.live = False
        self.rows_at = NEVER
        self.lines_at = NEVER
        self.reads_begun = 0
        self.reads_done = 0
        self._clock = clock
        self._lines: deque[Line] = deque()
        self._chars = 0
        self._has_lines = False
        self._nodes: dict[str, tuple[int, Node]] = {}
        self._held: list[tuple[int, Node]] = []
        self._shared: dict[int | None, Shared] = {}
        self._shared_at = 0
        self._looks: list[float] = []
        self._mark = 0

    # --- watchers

    def add(self, watcher: Watcher, not_before: float) -> None:
        """Let somebody in; they may start after the next read, which is due at `not_before`."""
        self.watchers.add(watcher)
        self._count()
        watcher.first_read = self.reads_begun + 1
        now = self._clock()
        self._looks = [now + seconds for seconds in LOOKS]
        self.rows_at = max(now, not_before)

    def remove(self, watcher: Watcher) -> None:
        """Let somebody out."""
        self.watchers.discard(watcher)
        self._count()
        if not self.wants_log:
            self._forget_lines()
            self._has_lines = False
            if self._held:
                self.read_now()  # nobody is left whose lines they waited for

    def _count(self) -> None:
        self.wants_log = any(watcher.wants_log for watcher in self.watchers)
        self.wants_tree = any(watcher.wants_tree for watcher in self.watchers)

    # --- rows

    @property
    def read_at(self) -> float:
        """When the hub should read for this feed."""
        return min(self.rows_at, self.lines_at)

    def want(self) -> Want:
        """Begin a read: say what is needed of the rows now."""
        self._mark = self.version
        since = (self.seq if self._has_lines else 0) if self.wants_log else None
        self.lines_at = NEVER
        if self.rows_at > self._clock():
            return Want(self.root, since=since)
        self.rows_at = NEVER
        self.reads_begun += 1
        tasks = {self.root, *(watcher.id for watcher in self.watchers)}
        return Want(
            self.root,
            tasks=tuple(tasks),
            since=since,
            tail=None if self._has_lines else KEPT_LINES,
            tree=self.wants_tree,
        )

    def take_rows(self, want: Want, rows: Rows, every: float) -> None:
        """
        End a read: adopt what the rows say, and plan the next read.

        A node that was patched since the read began keeps its patch: the rows may be older.
        While more lines follow than one page holds, no state is shown, only the lines.
        """
        now = self._clock()
        if want.since is not None:
            self._take_recorded(want, rows)
        if not rows.is_complete:
            self.rows_at = now
            return
        if want.tasks:
            self._take_states(rows)
            self._looks = [look for look in self._looks if look > now]
            # On the beat of all feeds, so that one call reads for every one of them.
            beat = (now // every + 1) * every
            self.rows_at = min([self.rows_at, *self._looks, beat])
            self.reads_done = self.reads_begun
        self._release_held()

    def _take_recorded(self, want: Want, rows: Rows) -> None:
        if not self._has_lines:
            self._has_lines = True
            self.seq = _number(rows.lines[0]) - 1 if rows.lines else rows.seq
        for line in rows.lines:
            if _number(line) > self.seq:
                self._append(line)
        if rows.is_complete and rows.seq > self.seq:
            self.seq = rows.seq  # lines that retention has deleted

    def _take_states(self, rows: Rows) -> None:
        before = (self.ended, self.gone, self.moved, self.counts)
        self.ended, self.gone, self.moved = rows.ended, rows.gone, rows.moved
        self.counts, self.truncated = rows.counts, rows.truncated
        if before != (self.ended, self.gone, self.moved, self.counts):
            self.version += 1
        for node in rows.nodes:
            if self._stamp(node["id"]) <= self._mark:
                self._change(node)

    def read_now(self) -> None:
        """Ask for a read of everything as soon as possible."""
        self.rows_at = min(self.rows_at, self._clock())

    def _read_lines_now(self) -> None:
        if self._has_lines:
            self.lines_at = self._clock()

    # --- events

    def take_event(self, message: Message) -> bool:
        """Adopt an event; True when watchers have something to see. Garbage is ignored."""
        kind, before = message.get("kind"), self.version
        if kind == "log" and self.wants_log:
            self._take_lines(_lines_of(message.get("lines")))
        elif kind == "state":
            for node in _nodes_of(message.get("nodes")):
                self._take_patch(node)
        elif kind in ("end", "look"):
            self.read_now()
        return self.version != before

    def _take_lines(self, lines: list[Line]) -> None:
        unrecorded = [line for line in lines if line["seq"] is None]
        for task in {line["task"] for line in lines}:
            self._note_life(task)
        for line in lines:
            if line["seq"] is None or line["seq"] <= self.seq or not self._has_lines:
                continue
            if line["seq"] > self.seq + 1:
                self._read_lines_now()
                break
            self._append(line)
        if unrecorded:
            self.version += 1
            for watcher in self.watchers:
                watcher.show(unrecorded)

    def _append(self, line: Line) -> None:
        if self._lines and _number(self._lines[-1]) + 1 != _number(line):
            self._forget_lines()
        self._lines.append(line)
        self._chars += len(line["message"])
        while len(self._lines) > KEPT_LINES or self._chars > KEPT_CHARS:
            self._chars -= len(self._lines.popleft()["message"])
        self.seq = _number(line)
        self.version += 1

    def _forget_lines(self) -> None:
        self._lines.clear()
        self._chars = 0

    def _note_life(self, task: str) -> None:
        """Read the rows when a task that is known as not started makes itself heard."""
        known = self.node(task)
        if known is not None and known["status"] in _NOT_STARTED:
            self.read_now()

    def _take_patch(self, patch: Node) -> None:
        self.version += 1
        if "status" not in patch:
            self._note_life(patch["id"])
        elif patch["status"] == "waiting":
            self.read_now()  # its children have just come into being
        elif patch["status"] in _ENDED and patch.get("parent"):
            # The open children of its parent are counted in the rows alone.
            self.rows_at = min(self.rows_at, self._clock() + COUNT_SECONDS)
        if patch.get("status") in _ENDED and self.wants_log:
            # Its last lines may still be on their way, or lost: they come first.
            self._held.append((self.version, patch))
            self._read_lines_now()
        else:
            self._patch(patch)

    def _release_held(self) -> None:
        ready = [patch for arrived, patch in self._held if arrived <= self._mark]
        self._held = [(arrived, patch) for arrived, patch in self._held if arrived > self._mark]
        for patch in ready:
            self._patch(patch)
        if ready:
            # Even if the rows had said as much before: the end had to wait, and may come now.
            self.version += 1
        if self._held:
            self._read_lines_now()

    def _patch(self, patch: Node) -> None:
        known = self.node(patch["id"])
        if known is None:
            if not self.wants_tree:
                return
            self.rows_at = min(self.rows_at, self._clock() + COUNT_SECONDS)
            if patch.keys() >= _IDENTITY and len(self._nodes) < MAX_NODES:
                self._change(patch)
        elif not _is_older(patch, known):
            self._change({**known, **patch})

    def _change(self, node: Node) -> None:
        known = self.node(node["id"])
        if known is not None and "children" not in node and "children" in known:
            node = {**node, "children": known["children"]}
        if known == node:
            return
        self.version += 1
        self._nodes.pop(node["id"], None)
        self._nodes[node["id"]] = (self.version, node)

    # --- what watchers read

    def node(self, id: str | None) -> Node | None:
        """One node, if it is known."""
        found = self._nodes.get(id or "")
        return None if found is None else found[1]

    def nodes(self) -> list[Node]:
        """Every known node, oldest task first."""
        return [node for _, (_, node) in sorted(self._nodes.items())]

    def changes(self, version: int) -> list[Node]:
        """The nodes that changed after a version, the first change first."""
        later = takewhile(lambda entry: entry[0] > version, reversed(self._nodes.values()))
        return [node for _, node in later][::-1]

    def shared(self, after: int | None = None) -> Shared:
        """The nodes, or those that changed after a version, written once for all watchers."""
        if self._shared_at != self.version:
            self._shared_at, self._shared = self.version, {}
        if after not in self._shared:
            nodes = self.nodes() if after is None else self.changes(after)
            self._shared[after] = Shared(nodes)
        return self._shared[after]

    def lines_after(self, cursor: int, limit: int) -> list[Line] | None:
        """Up to `limit` lines after number `cursor`; None when they are not kept here."""
        if cursor >= self.seq:
            return []
        if not self._lines or _number(self._lines[0]) > cursor + 1:
            return None
        start = cursor + 1 - _number(self._lines[0])
        return list(islice(self._lines, start, start + limit))

    def has_ended(self, id: str) -> bool:
        """Whether nothing can follow for a task: for the root, when its tree is over."""
        if id == str(self.root):
            return self.ended and not self._held
        known = self.node(id)
        return known is not None and known["status"] in _ENDED

    def _stamp(self, id: str) -> int:
        found = self._nodes.get(id)
        return 0 if found is None else found[0]


def _number(line: Line) -> int:
    return line["seq"] or 0


def _is_older(patch: Node, known: Node) -> bool:
    return _age(patch, known) < _age(known, known)


def _age(node: Node, known: Node) -> tuple[Any, int]:
    status = str(node.get("status", known["status"]))
    return (node.get("attempt", known.get("attempt", 0)), _RANK.get(status, 4))


def _lines_of(value: object) -> list[Line]:
    return [line for line in _dicts(value) if _is_line(line)]  # type: ignore[misc]


def _is_line(line: dict[str, Any]) -> bool:
    texts = ("task", "name", "message", "at")
    return (
        (line.get("seq") is None or isinstance(line["seq"], int))
        and all(isinstance(line.get(name), str) for name in texts)
        and isinstance(line.get("level"), int)
        and isinstance(line.get("attempt"), int)
    )


def _nodes_of(value: object) -> list[Node]:
    return [node for node in _dicts(value) if _is_node(node)]


def _is_node(node: dict[str, Any]) -> bool:
    return (
        isinstance(node.get("id"), str)
        and isinstance(node.get("status", ""), str)
        and isinstance(node.get("attempt", 0), int)
        and isinstance(node.get("parent") or "", str)
    )


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()

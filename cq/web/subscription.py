"""
Subscriptions: what one socket has been told about one task, and what it is due.

A subscription pulls: it looks at its feed and makes the next frame, in the order the
protocol promises (snapshot, lines, states, end). Nothing is queued for a slow reader, so
a thousand stalled ones cost nothing but their cursors.
"""

import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from cq.progress.publisher import Line, Node
from cq.web import snapshot
from cq.web.access import Grant
from cq.web.feed import Feed
from cq.web.protocol import Limits, Shared, Sub, error_frame

Frame = dict[str, Any]
Ask = Callable[..., Awaitable[Any]]

MAX_OUTCOME_BYTES = 64 * 1024
KEPT_UNRECORDED = 200

_OVER = {
    "gone": "The task is no longer kept. Expected one within its retention. Start it again.",
    "moved": "The task now belongs to another tree. Expected a new subscription. Subscribe "
    "again without since: its lines have new numbers.",
}


class Subscription:
    """One task on one socket; `next_frame` makes what is due, one frame at a time."""

    def __init__(
        self, request: Sub, grant: Grant, limits: Limits, ask: Ask, wake: Callable[[], None]
    ) -> None:
        self.id = grant.task
        self.root = grant.root
        self.scopes = grant.scopes
        self.token = request.token
        self.wake = wake
        self.first_read = 0
        self.over = False
        self.feed: Feed | None = None
        self._since = request.since
        self._tail = min(limits.tail if request.tail is None else request.tail, limits.max_tail)
        self._lines_per_frame = limits.lines_per_frame
        self._chars_per_frame = limits.chars_per_frame
        self._ask = ask
        self._started = False
        self._live = False
        self._cursor = 0
        self._version = 0
        self._unrecorded: deque[Line] = deque(maxlen=KEPT_UNRECORDED)

    @property
    def wants_log(self) -> bool:
        """Whether it may see the lines."""
        return "log" in self.scopes

    @property
    def wants_tree(self) -> bool:
        """Whether it may see more than the task it named."""
        return "tree" in self.scopes

    def show(self, unrecorded: list[Line]) -> None:
        """Take lines that are not recorded yet; the oldest make room."""
        if self.wants_log:
            self._unrecorded.extend(line for line in unrecorded if self._is_mine(line))

    @property
    def is_waiting_to_start(self) -> bool:
        """Whether its snapshot has not been sent."""
        return not self._started

    async def next_frame(self) -> Frame | None:
        """Make the next frame that is due, or None when there is nothing to say."""
        feed = self.feed
        if feed is None or self.over or feed.reads_done < self.first_read:
            return None
        if feed.moved or feed.gone or feed.node(str(self.id)) is None:
            self.over = True
            code = "moved" if feed.moved else "gone"
            return error_frame(code, _OVER[code], id=self.id)
        if not self._started:
            return self._snapshot(feed)
        while self.wants_log and self._cursor < feed.seq:
            frame = await self._lines(feed)
            if frame is not None:
                return frame
        if self._unrecorded:
            lines = list(self._unrecorded)
            self._unrecorded.clear()
            return self._log(lines)
        if self._version < feed.version or self._live != feed.live:
            frame = self._changes(feed)
            if frame is not None:
                return frame
        if feed.has_ended(str(self.id)):
            return await self._end(feed)
        return None

    def _snapshot(self, feed: Feed) -> Frame:
        self._started = True
        self._version, self._live = feed.version, feed.live
        frame: Frame = {
            "type": "snap",
            "id": str(self.id),
            "state": feed.node(str(self.id)),
            "scopes": sorted(self.scopes),
            "live": feed.live,
        }
        if self.wants_tree:
            frame["tree"] = self._visible(feed, None)
            frame |= self._counts(feed)
        if self.wants_log:
            frame["seq"] = feed.seq
            frame["reset"] = self._since is not None and self._since > feed.seq
            if self._since is None or frame["reset"]:
                self._cursor = max(0, feed.seq - self._tail)
            else:
                self._cursor = self._since
            frame["since"] = self._cursor
        return frame

    async def _lines(self, feed: Feed) -> Frame | None:
        lines = feed.lines_after(self._cursor, self._lines_per_frame)
        if lines is None:
            # Older than what the feed keeps: read by this subscription alone, page by page.
            seq = feed.seq
            lines = await self._ask(
                snapshot.read_lines, self.root, self._cursor, self._lines_per_frame
            )
            if not lines:
                self._cursor = seq  # they were deleted
                return None
        lines = _portion(lines, self._chars_per_frame)
        self._cursor = lines[-1]["seq"] or self._cursor
        mine = [line for line in lines if self._is_mine(line)]
        self._forget_unrecorded(mine)
        return self._log(mine) if mine else None

    def _forget_unrecorded(self, recorded: list[Line]) -> None:
        """Shown after its own record, such a line would stay for good: nothing follows it."""
        if not self._unrecorded:
            return
        known = Counter(map(_what_it_says, recorded))
        waiting, self._unrecorded = self._unrecorded, deque(maxlen=KEPT_UNRECORDED)
        for line in waiting:
            if known[_what_it_says(line)] > 0:
                known[_what_it_says(line)] -= 1
            else:
                self._unrecorded.append(line)

    def _log(self, lines: list[Line]) -> Frame:
        return {"type": "log", "id": str(self.id), "seq": self._cursor, "lines": lines}

    def _changes(self, feed: Feed) -> Frame | None:
        nodes = self._visible(feed, self._version)
        moved = self._live != feed.live
        self._version, self._live = feed.version, feed.live
        if not nodes and not moved:
            return None
        frame: Frame = {"type": "state", "id": str(self.id), "nodes": nodes, "live": feed.live}
        if self.wants_tree:
            frame |= self._counts(feed)
        return frame

    async def _end(self, feed: Feed) -> Frame:
        state = feed.node(str(self.id)) or {}
        frame: Frame = {"type": "end", "id": str(self.id), "state": state}
        if self.wants_log:
            frame["seq"] = self._cursor
        frame |= await self._ask(read_outcome, self.id, self.scopes)
        self.over = True
        return frame

    def _counts(self, feed: Feed) -> Frame:
        return {"truncated": True, "counts": feed.counts} if feed.truncated else {}

    def _is_mine(self, line: Line) -> bool:
        return self.id == self.root or line["task"] == str(self.id)

    def _visible(self, feed: Feed, after: int | None) -> Shared | list[Node]:
        shared = feed.shared(after)
        if not self.wants_tree:
            return [node for node in shared.value if node["id"] == str(self.id)]
        if self.id == self.root:
            return shared
        return [node for node in shared.value if self._is_below(node, feed)]

    def _is_below(self, node: Node | None, feed: Feed) -> bool:
        while node is not None and node["id"] != str(self.id):
            node = feed.node(node.get("parent"))
        return node is not None


def _what_it_says(line: Line) -> tuple[str, int, str]:
    return line["task"], line["attempt"], line["message"]


def _portion(lines: list[Line], chars: int) -> list[Line]:
    """The first of these lines, as many as fit; one at least."""
    for number, line in enumerate(lines):
        chars -= len(line["message"])
        if chars < 0 and number:
            return lines[:number]
    return lines


def read_outcome(task: UUID, scopes: frozenset[str]) -> Frame:
    """Read what a task came to; what is too large for a frame is named in `omitted`."""
    outcome = snapshot.read_outcome(task, scopes)
    large = [name for name in outcome if len(json.dumps(outcome[name])) > MAX_OUTCOME_BYTES]
    for name in large:
        outcome[name] = None
    return outcome | ({"omitted": large} if large else {})

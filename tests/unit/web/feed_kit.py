"""A feed with a clock and rows of its own, for the tests of the feed."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from cq.progress.publisher import Line, Node
from cq.transport.groups import event_message
from cq.web.feed import Feed
from cq.web.snapshot import PAGE, Rows, Want

ROOT = uuid4()
EVERY = 10.0


def line(seq: int | None, task: UUID = ROOT) -> Line:
    return Line(
        seq=seq, task=str(task), name="t", attempt=1, level=20, message=f"line {seq}", at="now"
    )


def lines(first: int, last: int) -> list[Line]:
    return [line(seq) for seq in range(first, last + 1)]


def node(task: UUID = ROOT, status: str = "running", attempt: int = 1, **more: Any) -> Node:
    return {"id": str(task), "name": "t", "status": status, "attempt": attempt, **more}


class Someone:
    """A watcher that counts."""

    def __init__(self, *, log: bool = True, tree: bool = False, id: UUID = ROOT) -> None:
        self.id, self.wants_log, self.wants_tree = id, log, tree
        self.first_read = 0
        self.is_waiting_to_start = True
        self.woken = 0
        self.shown: list[Line] = []

    def wake(self) -> None:
        self.woken += 1

    def show(self, unrecorded: list[Line]) -> None:
        self.shown += unrecorded


class Tree:
    """A feed, its clock and the rows behind it."""

    def __init__(self, *watchers: Someone) -> None:
        self.now = 100.0
        self.feed = Feed(ROOT, lambda: self.now)
        self.rows = Rows(nodes=[node()])
        self.recorded: list[Line] = []
        for watcher in watchers or (Someone(),):
            self.feed.add(watcher, 0.0)

    def begin(self) -> Want:
        return self.feed.want()

    def finish(self, want: Want) -> None:
        rows = Rows(ended=self.rows.ended, gone=self.rows.gone)
        if want.tasks:
            rows.seq = len(self.recorded)
            rows.nodes = list(self.rows.nodes)
        if want.since is not None:
            since = want.since
            if want.tail is not None:
                since = max(since, rows.seq - want.tail)
            rows.lines = self.recorded[since : since + PAGE]
        self.feed.take_rows(want, rows, EVERY)

    def read(self) -> Want:
        want = self.begin()
        self.finish(want)
        return want

    def tell(self, kind: str, **data: Any) -> bool:
        return self.feed.take_event(event_message(ROOT.hex, kind, "elsewhere", **data))

    def numbers(self, cursor: int = 0) -> list[int | None]:
        return [entry["seq"] for entry in self.feed.lines_after(cursor, 10**6) or []]

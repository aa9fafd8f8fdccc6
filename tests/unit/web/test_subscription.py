"""A subscription: which lines it is due, and in which order."""

from __future__ import annotations

from cq.progress.publisher import Line
from cq.web.access import Grant
from cq.web.protocol import Limits, Sub
from cq.web.subscription import Subscription
from tests.unit.web.feed_kit import ROOT, Tree, line


def saying(seq: int | None, message: str) -> Line:
    return {**line(seq), "message": message}


def subscribed(tree: Tree) -> Subscription:
    async def ask(*args: object) -> object:
        raise AssertionError("Everything it needs is in the feed.")

    grant = Grant(ROOT, ROOT, frozenset({"progress", "log"}))
    made = Subscription(Sub(ROOT, None, 0, None), grant, Limits(), ask, lambda: None)
    made.feed = tree.feed
    tree.feed.add(made, 0.0)
    return made


async def told(subscription: Subscription) -> list[tuple[int | None, str]]:
    """The lines of every frame that is due."""
    lines: list[tuple[int | None, str]] = []
    while (frame := await subscription.next_frame()) is not None:
        lines += [(one["seq"], one["message"]) for one in frame.get("lines", ())]
    return lines


async def test_a_line_that_is_recorded_before_it_was_shown_comes_once():
    tree = Tree()
    reader = subscribed(tree)
    tree.read()
    assert await told(reader) == []
    tree.tell("log", lines=[saying(None, text) for text in ("one", "two", "one", "three")])
    tree.tell("log", lines=[saying(1, "one"), saying(2, "two")])
    assert await told(reader) == [(1, "one"), (2, "two"), (None, "one"), (None, "three")]
    tree.tell("log", lines=[saying(3, "one"), saying(4, "three")])
    assert await told(reader) == [(3, "one"), (4, "three")]

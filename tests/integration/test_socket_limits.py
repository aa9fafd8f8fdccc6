"""
The socket and its limits: what a scope hides, what a slow reader costs, what is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cq.models import Task
from cq.progress import publisher
from cq.web.protocol import Limits
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.watching import Rows, Tree, page
from tests.integration.watching import rows as thread_for_rows

ALL = ("progress", "tree", "log", "result", "error")


@pytest.fixture
def rows(database: Any, use_layers: Layers) -> Iterator[Rows]:
    use_layers("redis")
    with thread_for_rows() as made:
        yield made


@pytest.fixture
async def tree(rows: Rows) -> Tree:
    made: Tree = await rows(Tree)
    return made


def token(tree: Tree, *scopes: str) -> str:
    return watch_token(tree.root, scopes or ALL)


class TestScopes:
    async def test_progress_alone_shows_no_line_no_tree_no_result(self, tree: Tree, rows: Rows):
        child = await rows(tree.child)
        async with page() as late:
            await late.watch(tree, token=token(tree, "progress"), since=0)
            await late.until("snap")
            await rows(tree.log, "secret")
            await rows(tree.move, "S", child)
            await rows(tree.move, "S", result="secret")
            await late.until("end")
            assert "secret" not in str(late.frames)
            assert str(child.id) not in str(late.frames)
            assert not [frame for frame in late.frames if "tree" in frame or "seq" in frame]

    async def test_a_result_too_large_for_a_frame_is_named_instead(self, tree: Tree, rows: Rows):
        await rows(tree.move, "S", result="x" * 100_000)
        async with page() as late:
            await late.watch(tree, token=token(tree))
            end = await late.until("end")
            assert (end["result"], end["omitted"]) == (None, ["result"])


class TestSlowReaders:
    async def test_nothing_is_sent_beyond_the_window_until_an_ack(self, tree: Tree, rows: Rows):
        await rows(tree.log, *map(str, range(1, 1001)))
        async with page(limits=Limits(window=100, lines_per_frame=20)) as slow:
            slow.acks = False
            await slow.watch(tree, token=token(tree), since=0)
            while not await slow.is_quiet():
                last = await slow.next()
            assert 100 <= len(slow.lines()) + 1 <= 120
            await slow.send(type="ack", frame=last["frame"])
            slow.acks = True
            await slow.until_line(1000)
            assert slow.numbers() == list(range(1, 1001))

    async def test_a_reader_that_stops_is_sent_away_and_comes_back_without_a_gap(
        self, tree: Tree, rows: Rows
    ):
        """B31."""
        await rows(tree.log, *map(str, range(1, 1001)))
        async with page(limits=Limits(window=100, stall=0.2, tick=0.1)) as slow:
            slow.acks = False
            await slow.watch(tree, token=token(tree), since=0)
            bye = await slow.until("bye")
            assert "since" in bye["reason"]
            assert await slow.next() == {"type": "close", "code": 4013}
        last = slow.numbers()[-1]
        async with page() as again:
            await again.watch(tree, token=token(tree), since=last)
            await again.until_line(1000)
        assert slow.numbers() + again.numbers() == list(range(1, 1001))

    async def test_long_lines_come_in_frames_of_a_bearable_size(self, tree: Tree, rows: Rows):
        await rows(tree.log, *(str(n) * 8000 for n in range(1, 8)), "short", "x" * 8000)
        async with page(limits=Limits(chars_per_frame=20_000)) as late:
            await late.watch(tree, token=token(tree), since=0)
            await late.until_line(9)
            assert late.numbers() == list(range(1, 10))
            frames = [frame["lines"] for frame in late.frames if "lines" in frame]
            assert [len(lines) for lines in frames] == [2, 2, 2, 3]


class TestUnrecorded:
    async def test_lines_not_yet_recorded_are_shown_marked_and_follow_with_their_number(
        self, use_layers: Layers, tree: Tree, rows: Rows
    ):
        use_layers("none")
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            await late.until("snap")
            line = publisher.line(
                seq=None,
                task=tree.id,
                name="t",
                attempt=1,
                level=20,
                message="held back",
                at=datetime.now(UTC),
            )
            await rows(publisher.lines, tree.id.hex, [line])
            await late.until("log", timeout=0.9)
            await rows(tree.log, "held back")
            await late.until_line(1)
            assert late.numbers() == [None, 1]


class TestRetention:
    async def test_a_task_that_is_pruned_while_it_is_watched_is_gone(self, tree: Tree, rows: Rows):
        async with page() as visitor:
            await visitor.watch(tree, token=token(tree))
            await visitor.until("snap")
            await rows(Task.objects.filter(pk=tree.id).delete)
            error = await visitor.until("err", timeout=12)
            assert (error["code"], error["retryable"]) == ("gone", False)

    async def test_a_task_that_is_adopted_into_another_tree_is_watched_anew(
        self, tree: Tree, rows: Rows
    ):
        other: Tree = await rows(Tree)
        async with page() as visitor:
            await visitor.watch(tree, token=token(tree), since=0)
            await visitor.until("snap")
            await rows(Task.objects.filter(pk=tree.id).update, root=other.id, parent=other.id)
            error = await visitor.until("err", timeout=12)
            assert (error["code"], error["retryable"]) == ("moved", True)
            await visitor.watch(tree, token=token(tree))
            assert (await visitor.until("snap"))["state"]["parent"] == str(other.id)

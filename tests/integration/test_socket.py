"""
The socket on real rows and a real Redis: what is sent, in which order, and how often.

The stream itself runs on every kind of layer under the browser: both of channels-redis,
the in-memory one, and none, where the rows are all there is. The rest runs on one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cq.web import hub as hubs
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.watching import Page, Rows, Tree, page
from tests.integration.watching import rows as thread_for_rows

CORE = {"BACKEND": "channels_redis.core.RedisChannelLayer"}
ALL = ("progress", "tree", "log", "result", "error")


@pytest.fixture
def rows(database: Any) -> Iterator[Rows]:
    with thread_for_rows() as made:
        yield made


EVERY_LAYER = pytest.mark.parametrize("layers", ["pubsub", "core", "memory", "none"], indirect=True)


@pytest.fixture
def layers(request: pytest.FixtureRequest, use_layers: Layers, settings: Any) -> str:
    """The layers of the test: Redis, with pub/sub to the browsers, unless it asks for others."""
    kind: str = getattr(request, "param", "pubsub")
    use_layers("redis" if kind in ("pubsub", "core") else kind)
    if kind == "core":
        settings.CHANNEL_LAYERS = {
            **settings.CHANNEL_LAYERS,
            "default": CORE | {"CONFIG": settings.CHANNEL_LAYERS["default"]["CONFIG"]},
        }
    return kind


@pytest.fixture
async def tree(rows: Rows) -> Tree:
    made: Tree = await rows(Tree)
    return made


@pytest.fixture
async def watcher(layers: str, tree: Tree) -> AsyncIterator[Page]:
    """A page that watches the whole tree."""
    async with page() as made:
        await made.watch(tree, token=watch_token(tree.root, ALL), since=0)
        yield made


def token(tree: Tree, *scopes: str) -> str:
    return watch_token(tree.root, scopes or ALL)


@EVERY_LAYER
class TestStream:
    async def test_a_snapshot_then_lines_then_states_then_the_end_once(
        self, watcher: Page, tree: Tree, rows: Rows
    ):
        snap = await watcher.until("snap")
        assert (snap["state"]["status"], snap["seq"], snap["since"]) == ("queued", 0, 0)
        await rows(tree.move, "R")
        await watcher.until_status("running")
        await rows(tree.log, "one", "two")
        await rows(tree.log, "three")
        await rows(tree.move, "S", result={"rows": 3})
        end = await watcher.until("end")
        assert watcher.numbers() == [1, 2, 3]
        assert [line["message"] for line in watcher.lines()] == ["one", "two", "three"]
        assert (end["state"]["status"], end["result"], end["seq"]) == ("success", {"rows": 3}, 3)
        assert await watcher.is_quiet()
        assert watcher.types().count("end") == 1

    async def test_a_terminal_status_is_never_seen_before_its_lines(
        self, watcher: Page, tree: Tree, rows: Rows
    ):
        await watcher.until("snap")
        await rows(tree.move, "R")
        await rows(tree.log, "told")
        await rows(tree.log, "lost on the way", tell=False)
        await rows(tree.move, "S")
        await watcher.until_status("success")
        assert watcher.numbers() == [1, 2]

    async def test_a_task_that_ended_before_the_page_came(
        self, layers: str, tree: Tree, rows: Rows
    ):
        await rows(tree.move, "R")
        await rows(tree.log, *map(str, range(1, 301)))
        await rows(tree.move, "F", error="ValueError: bad magic")
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            end = await late.until("end")
            assert late.numbers() == list(range(1, 301))
            assert max(len(frame.get("lines", ())) for frame in late.frames) == 200
            assert end["error"] == "ValueError: bad magic"

    async def test_children_appear_and_change(self, watcher: Page, tree: Tree, rows: Rows):
        await watcher.until("snap")
        first = await rows(tree.child)
        await watcher.until_status("queued", str(first.id))
        await rows(tree.move, "R", first)
        await rows(tree.log, "from below", task=first)
        await rows(tree.move, "S", first)
        node = await watcher.until_status("success", str(first.id))
        assert (node["parent"], node["name"]) == (str(tree.id), "tests.row")
        assert watcher.lines()[0]["task"] == str(first.id)
        assert "end" not in watcher.types()

    async def test_the_end_comes_when_nothing_of_the_tree_is_open(
        self, watcher: Page, tree: Tree, rows: Rows
    ):
        await watcher.until("snap")
        chained = await rows(tree.child)
        await rows(tree.move, "S")
        await watcher.until_status("success", str(tree.id))
        assert await watcher.is_quiet()
        await rows(tree.move, "S", chained)
        await watcher.until("end")
        assert watcher.types().count("end") == 1


class TestResume:
    @pytest.mark.parametrize("since", [0, 1, 10, 29, 30])
    async def test_exactly_the_lines_after_since(
        self, layers: str, tree: Tree, rows: Rows, since: int
    ):
        await rows(tree.log, *map(str, range(1, 31)))
        async with page() as late:
            await late.watch(tree, token=token(tree), since=since)
            snap = await late.until("snap")
            assert (snap["seq"], snap["since"], snap["reset"]) == (30, since, False)
            await rows(tree.log, "31")
            await late.until_line(31)
            assert late.numbers() == list(range(since + 1, 32))

    @EVERY_LAYER
    async def test_a_socket_that_is_cut_after_ten_of_thirty_goes_on_at_eleven(
        self, layers: str, tree: Tree, rows: Rows
    ):
        async with page() as first:
            await first.watch(tree, token=token(tree), since=0)
            await first.until("snap")
            await rows(tree.log, *map(str, range(1, 11)))
            await first.until_line(10)
        await rows(tree.log, *map(str, range(11, 21)))
        async with page() as second:
            await second.watch(tree, token=token(tree), since=10)
            await second.until("snap")
            await rows(tree.log, *map(str, range(21, 31)))
            await second.until_line(30)
            assert first.numbers() + second.numbers() == list(range(1, 31))
            assert await second.is_quiet()

    async def test_a_page_that_names_no_since_gets_the_last_lines(
        self, layers: str, tree: Tree, rows: Rows
    ):
        await rows(tree.log, *map(str, range(1, 251)))
        async with page() as late:
            await late.watch(tree, token=token(tree), tail=40)
            snap = await late.until("snap")
            assert snap["since"] == 210
            await late.until_line(250)
            assert late.numbers() == list(range(211, 251))

    @pytest.mark.parametrize("since", [6, 10**18])
    async def test_a_since_from_the_future_starts_afresh(
        self, layers: str, tree: Tree, rows: Rows, since: int
    ):
        """B30."""
        await rows(tree.log, *map(str, range(1, 6)))
        async with page() as late:
            await late.watch(tree, token=token(tree), since=since)
            snap = await late.until("snap")
            assert (snap["reset"], snap["since"]) == (True, 0)
            await late.until_line(5)
            assert late.numbers() == [1, 2, 3, 4, 5]

    async def test_a_record_longer_than_the_hub_keeps(self, layers: str, tree: Tree, rows: Rows):
        await rows(tree.log, *map(str, range(1, 2301)))
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            await late.until_line(2300)
            assert late.numbers() == list(range(1, 2301))

    async def test_lines_that_are_recorded_while_a_page_catches_up(
        self, layers: str, tree: Tree, rows: Rows
    ):
        await rows(tree.log, *map(str, range(1, 1501)))
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            for start in range(1501, 2001, 50):
                await rows(tree.log, *map(str, range(start, start + 50)))
            await late.until_line(2000)
            assert late.numbers() == list(range(1, 2001))


class TestWithoutEvents:
    @EVERY_LAYER
    async def test_news_that_nobody_tells_are_found_in_the_rows(
        self, layers: str, tree: Tree, rows: Rows
    ):
        tree.tells = False
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            await late.until("snap")
            await rows(tree.move, "R")
            await rows(tree.log, "one")
            await rows(tree.move, "S")
            await late.until("end", timeout=4)
            assert late.numbers() == [1]

    async def test_a_dead_redis_costs_a_second_and_nothing_else(
        self, use_layers: Layers, tree: Tree, rows: Rows, settings: Any
    ):
        use_layers("redis")
        layers = settings.CHANNEL_LAYERS
        for layer in layers.values():
            layer["CONFIG"] = {"hosts": ["redis://127.0.0.1:1/0"]}
        settings.CHANNEL_LAYERS = dict(layers)
        async with page() as late:
            await late.watch(tree, token=token(tree), since=0)
            snap = await late.until("snap", timeout=3)
            assert snap["live"] is False
            await rows(tree.log, "one", tell=False)
            await late.until_line(1, timeout=3)

    async def test_a_lost_event_is_noticed_by_the_next(self, watcher: Page, tree: Tree, rows: Rows):
        await watcher.until("snap")
        await rows(tree.log, "1")
        await rows(tree.log, "2", "3", tell=False)
        await rows(tree.log, "4")
        await watcher.until_line(4)
        assert watcher.numbers() == [1, 2, 3, 4]


class TestBarrier:
    async def test_the_layer_is_proved_before_the_snapshot_says_live(
        self, use_layers: Layers, tree: Tree
    ):
        use_layers("redis")
        async with page() as first, page() as second:
            await first.watch(tree, token=token(tree))
            assert (await first.until("snap"))["live"] is True
            await second.watch(tree, token=token(tree))
            assert (await second.until("snap"))["live"] is True

    @pytest.mark.parametrize("kind", ["memory", "none"])
    async def test_without_a_layer_that_crosses_processes_nothing_is_live(
        self, use_layers: Layers, tree: Tree, kind: str
    ):
        use_layers(kind)
        async with page() as late:
            await late.watch(tree, token=token(tree))
            assert (await late.until("snap"))["live"] is False


class TestManySubscriptions:
    async def test_two_tasks_on_one_socket(self, layers: str, rows: Rows):
        one, two = await rows(Tree), await rows(Tree)
        async with page() as both:
            await both.watch(one, token=token(one), since=0)
            await both.watch(two, token=token(two), since=0)
            await rows(one.log, "of one")
            await rows(two.log, "of two")
            while len(both.lines()) < 2:
                await both.next()
            by_id = {
                frame["id"]: frame["lines"][0]["message"]
                for frame in both.frames
                if "lines" in frame
            }
            assert by_id == {str(one.id): "of one", str(two.id): "of two"}

    async def test_unsubscribing_stops_the_frames(self, watcher: Page, tree: Tree, rows: Rows):
        await watcher.until("snap")
        await watcher.send(type="unsub", id=str(tree.id))
        await watcher.send(type="ping")
        await watcher.until("pong")
        await rows(tree.log, "unseen")
        assert await watcher.is_quiet()

    async def test_subscribing_again_starts_again(self, watcher: Page, tree: Tree, rows: Rows):
        await rows(tree.log, "1", "2")
        await watcher.until_line(2)
        await watcher.watch(tree, token=token(tree), since=1)
        await watcher.until("snap")
        await watcher.until("log")
        assert watcher.numbers() == [1, 2, 2]

    @EVERY_LAYER
    async def test_many_sockets_share_one_feed(self, layers: str, tree: Tree, rows: Rows):
        async with page() as first, page() as second, page() as third:
            everybody = (first, second, third)
            for one in everybody:
                await one.watch(tree, token=token(tree), since=0)
            for one in everybody:
                await one.until("snap")
            (hub,) = hubs._hubs.values()
            assert len(hub._feeds) == 1
            await rows(tree.log, *map(str, range(1, 51)))
            for one in everybody:
                await one.until_line(50)
                assert one.numbers() == list(range(1, 51))

    async def test_the_hub_goes_with_the_last_socket(self, watcher: Page, tree: Tree):
        await watcher.until("snap")
        await watcher._communicator.disconnect()
        assert not hubs._hubs

    async def test_a_child_alone(self, layers: str, tree: Tree, rows: Rows):
        child, other = await rows(tree.child), await rows(tree.child)
        await rows(tree.log, "mine", task=child)
        await rows(tree.log, "of my sister", task=other)
        async with page() as late:
            await late.watch(child, token=watch_token(child, ALL), since=0)
            snap = await late.until("snap")
            assert snap["state"]["id"] == str(child.id)
            assert [node["id"] for node in snap["tree"]] == [str(child.id)]
            await rows(tree.move, "R", child)
            await rows(tree.move, "S", child)
            await late.until("end")
            assert [line["message"] for line in late.lines()] == ["mine"]

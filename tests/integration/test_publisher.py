"""
From a real worker through a real Redis to a socket: news that arrive by events alone.

The rows are read once when a page comes and then not for a long time, so that whatever
it sees later was told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cq.models import Task
from cq.progress import publisher
from cq.transport.groups import audience_messages, root_group
from cq.web import feed as feeds
from cq.web import hub as hubs
from cq.web import link as links
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.watching import Page, Rows, Tree, page
from tests.integration.watching import rows as thread_for_rows
from tests.sampleapp import tasks
from tests.workers import WorkerFactory

ALL = ("progress", "tree", "log", "result")


@pytest.fixture
def rows(database: Any) -> Iterator[Rows]:
    with thread_for_rows() as made:
        yield made


@pytest.fixture(params=["pubsub", "core"])
def layers(request: pytest.FixtureRequest, use_layers: Layers, settings: Any) -> str:
    use_layers("redis")
    if request.param == "core":
        config = settings.CHANNEL_LAYERS["default"]["CONFIG"]
        core = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}
        settings.CHANNEL_LAYERS = {**settings.CHANNEL_LAYERS, "default": core}
    return str(request.param)


@pytest.fixture
def by_events_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first read, the rows are read when an event asks for it and never else."""
    monkeypatch.setattr(feeds, "LOOKS", (3600.0,) * 4)
    monkeypatch.setattr(hubs, "LIVE_READ_SECONDS", 3600.0)
    monkeypatch.setattr(hubs, "BLIND_READ_SECONDS", 3600.0)


async def watch(visitor: Page, task: Task) -> dict[str, Any]:
    await visitor.watch(task, token=watch_token(task, ALL), since=0)
    return await visitor.until("snap")


class TestOneProcessTellsAnother:
    """The test publishes as another process would: not through the sinks of this one."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, layers: str, by_events_alone: None, monkeypatch: Any) -> None:
        tell = publisher.event_message

        def tell_as_another(root: str, kind: str, origin: str, **data: Any) -> dict[str, Any]:
            return tell(root, kind, "another process", **data)

        monkeypatch.setattr(publisher, "event_message", tell_as_another)
        monkeypatch.setattr(publisher, "attach", lambda sink: None)

    async def test_lines_states_and_the_end(self, rows: Rows):
        tree: Tree = await rows(Tree)
        for message in audience_messages([tree.id.hex]):
            publisher.audience(message)
        async with page() as visitor:
            assert (await watch(visitor, tree.root))["live"] is True
            await rows(tree.move, "R")
            await visitor.until_status("running")
            await rows(tree.log, "1", "2")
            await visitor.until_line(2)
            await rows(tree.log, "lost", tell=False)
            await rows(tree.log, "4")
            await visitor.until_line(4)
            await rows(tree.move, "S")
            await visitor.until("end")
            assert visitor.numbers() == [1, 2, 3, 4]

    async def test_a_nudge_reaches_watchers_that_nobody_announced(self, rows: Rows):
        tree: Tree = await rows(Tree)
        tree.tells = False
        async with page() as visitor:
            await watch(visitor, tree.root)
            await rows(tree.move, "R")
            await rows(publisher.nudge, tree.id.hex)
            await visitor.until_status("running")

    async def test_forged_events_change_nothing_that_the_rows_decide(
        self, rows: Rows, await_until: Callable[..., Any]
    ):
        from channels.layers import get_channel_layer

        tree: Tree = await rows(Tree)
        async with page() as visitor:
            await watch(visitor, tree.root)
            layer = get_channel_layer("default")
            root = tree.id.hex
            for data in (
                {"kind": "end"},
                {"kind": "log", "lines": 7},
                {"kind": "log", "lines": [{"seq": 99}]},
                {"kind": "state", "nodes": [{"id": str(tree.id), "status": "success"}]},
                {"kind": ["x"]},
                {"kind": "nonce", "nonce": "guessed"},
            ):
                await layer.group_send(root_group(root), {"type": "cq.event", "root": root, **data})
            await layer.group_send(root_group(root), {"type": "websocket.close"})
            await rows(tree.log, "true")
            await rows(publisher.nudge, root)
            await visitor.until_line(1)
            assert "end" not in visitor.types()

    async def test_a_root_that_is_watched_no_more_is_left(
        self, rows: Rows, await_until: Callable[..., Any]
    ):
        tree, other = await rows(Tree), await rows(Tree)
        async with page() as visitor:
            await watch(visitor, tree.root)
            await watch(visitor, other.root)
            (hub,) = hubs._hubs.values()
            await visitor.send(type="unsub", id=str(tree.id))
            await await_until(lambda: len(hub._feeds) == 1 and not hub._link._left)
            assert not publisher.watched(tree.id.hex)
            assert publisher.watched(other.id.hex)


class TestRenewal:
    async def test_a_membership_that_the_layer_forgot_is_renewed(
        self, use_layers: Layers, rows: Rows, settings: Any, monkeypatch: pytest.MonkeyPatch
    ):
        use_layers("redis")
        core = "channels_redis.core.RedisChannelLayer"
        config = settings.CHANNEL_LAYERS["default"]["CONFIG"]
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": core, "CONFIG": config}}
        monkeypatch.setattr(links, "RENEW_SECONDS", 0.2)
        tree: Tree = await rows(Tree)
        async with page() as visitor:
            await watch(visitor, tree.root)
            with redis.Redis.from_url(use_layers.url) as client:
                client.flushdb()
                group = f"asgi:group:{root_group(tree.id)}"
                key = await rows(_wait_for_key, client, group)
            assert key == "zset"

    async def test_a_feed_whose_nonce_does_not_come_back_reads_the_rows(
        self, use_layers: Layers, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ):
        use_layers("redis")
        monkeypatch.setattr(links, "RENEW_SECONDS", 0.2)
        monkeypatch.setattr(links, "BARRIER_SECONDS", 0.2)
        monkeypatch.setattr(hubs, "BLIND_READ_SECONDS", 0.2)
        monkeypatch.setattr(hubs, "LIVE_READ_SECONDS", 3600.0)
        tree: Tree = await rows(Tree)
        tree.tells = False
        async with page() as visitor:
            assert (await watch(visitor, tree.root))["live"] is True
            monkeypatch.setattr(links.Link, "_prove", lambda *arguments: None)
            while (await visitor.until("state"))["live"]:
                pass
            await rows(tree.log, "found")
            await visitor.until_line(1)


def _wait_for_key(client: redis.Redis, key: str) -> str:
    from tests.waiting import wait_until

    wait_until(lambda: client.exists(key))
    return bytes(client.type(key)).decode()


class TestWorker:
    async def test_what_a_worker_records_is_seen_at_once(
        self, rows: Rows, worker_process: WorkerFactory, by_events_alone: None
    ):
        await rows(worker_process)
        task = await rows(tasks.log_lines.delay, 30, 0.05)
        async with page() as visitor:
            assert (await watch(visitor, task))["live"] is True
            await visitor.until("end", timeout=15)
            assert visitor.numbers() == list(range(1, 31))
            assert len([frame for frame in visitor.frames if "lines" in frame]) >= 4

    async def test_a_worker_that_starts_later_asks_who_is_there(
        self, rows: Rows, worker_process: WorkerFactory, by_events_alone: None
    ):
        task = await rows(tasks.log_lines.delay, 10, 0.1)
        async with page() as visitor:
            await watch(visitor, task)
            await rows(worker_process)
            await visitor.until("end", timeout=15)
            assert visitor.numbers() == list(range(1, 11))

    async def test_progress_and_children(
        self, rows: Rows, worker_process: WorkerFactory, by_events_alone: None
    ):
        await rows(worker_process)
        task = await rows(tasks.report_progress.delay, 20, 0.1)
        async with page() as visitor:
            await watch(visitor, task)
            await visitor.until("end", timeout=15)
            seen = [
                node["progress"]["done"]
                for frame in visitor.frames
                for node in frame.get("nodes", ())
                if node.get("progress")
            ]
            assert seen == sorted(seen)
            assert len(set(seen)) >= 5

    async def test_nobody_watches_and_nothing_is_published(
        self, rows: Rows, worker_process: WorkerFactory, use_layers: Layers
    ):
        await rows(worker_process)
        with redis.Redis.from_url(use_layers.url) as client:
            await rows(client.config_resetstat)
            row = await rows(tasks.log_lines.delay, 50)
            await rows(row.wait, 10)
            published = await rows(client.info, "commandstats")
        assert published.get("cmdstat_publish", {"calls": 0})["calls"] <= 1
        assert threading.active_count() < 100

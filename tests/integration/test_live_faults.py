"""Live views while a database is down, Redis loses everything, and sockets are cut (P24)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from django.db import connections

from cq.aio import in_db
from cq.web.protocol import Limits
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.watching import Page, Rows, Tree, page
from tests.integration.watching import rows as thread_for_rows
from tests.sampleapp import tasks
from tests.services import Server
from tests.settings import DATABASE_KIND
from tests.workers import WorkerFactory

ALL = ("progress", "tree", "log", "result")


@pytest.fixture
def rows(database: Any) -> Iterator[Rows]:
    with thread_for_rows() as made:
        yield made


@pytest.mark.skipif(DATABASE_KIND == "sqlite", reason="SQLite has no server that could be down.")
async def test_a_database_that_was_down(
    rows: Rows, use_layers: Layers, postgres_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    use_layers("none")
    tree: Tree = await rows(Tree)
    token = watch_token(tree.root, ALL)
    often = Limits(reauthorise=0.05, tick=0.05)
    async with page() as visitor, page(limits=often) as other:
        await other.watch(tree, token=token)
        await other.until("snap")
        await visitor.watch(tree, token=token, since=0)
        await visitor.until("snap")
        await rows(tree.log, "before")
        await visitor.until_line(1)
        await asyncio.to_thread(postgres_server.halt)
        try:
            await visitor.watch(tree, token=token, since=1)
            error = await visitor.until("err")
            assert (error["code"], error["retryable"]) == ("unavailable", True)
        finally:
            await asyncio.to_thread(postgres_server.resume)
        await rows(connections.close_all)
        await in_db(connections.close_all)  # the session that other tests use on this thread
        await visitor.watch(tree, token=token, since=1)
        await rows(tree.log, "after")
        await visitor.until_line(2)
        assert visitor.numbers() == [1, 2]
    told = [record for record in caplog.records if record.name == "cq.web"]
    assert [record.levelname for record in told] == ["WARNING"]


@pytest.mark.long
async def test_lines_are_whole_whatever_is_cut_flushed_or_restarted(
    rows: Rows,
    use_layers: Layers,
    worker_process: WorkerFactory,
    redis_server: Server,
) -> None:
    count, rand = 4000, random.Random(7)
    use_layers("redis")
    await rows(worker_process)
    task = await rows(tasks.log_lines.delay, count, 0.001)
    token = watch_token(task, ALL)
    numbers: list[int] = []
    ends = cuts = 0
    while not ends:
        async with page() as visitor:
            await visitor.watch(task, token=token, since=numbers[-1] if numbers else 0)
            ends = await read_until_cut(visitor, rand.randint(2, 5) if cuts < 12 else 10**6)
            numbers += visitor.numbers()
        cuts += 1
        with suppress(redis.RedisError):
            await rows(flush, use_layers.url)
        if cuts == 4:
            await asyncio.to_thread(redis_server.kill)
            await asyncio.to_thread(redis_server.resume)
    assert numbers == list(range(1, count + 1))
    assert cuts >= 8
    assert ends == 1


async def read_until_cut(visitor: Page, frames: int) -> int:
    """Read some frames, or up to the end; how often the end came."""
    for _ in range(frames):
        frame = await visitor.next(timeout=20)
        assert frame["type"] != "close"
        if frame["type"] == "end":
            return 1
    return 0


def flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()

"""The receiver on real layers: it rings, outlives every fault, and loses nothing on purpose."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from channels.layers import BaseChannelLayer, InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer

from cq import layers
from cq.layers import RedisLayer
from cq.transport.messages import run_message
from cq.worker.receiver import Receiver
from tests.services import Server

Bells = asyncio.Queue[dict[str, Any]]
KEY = "asgicq-tasks"
BELL = run_message(["0" * 32])
AwaitUntil = Callable[..., Awaitable[Any]]


@pytest.fixture
def client(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@asynccontextmanager
async def listening(layer: BaseChannelLayer) -> AsyncIterator[tuple[Receiver, Bells]]:
    """Run a receiver as a worker does, and end it as a process does."""
    bells: Bells = asyncio.Queue()
    receiver = Receiver(layer, "default", bells.put_nowait)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(receiver.run())
        try:
            yield receiver, bells
        finally:
            running.cancel()
    if isinstance(layer, RedisChannelLayer):
        await layer.close_pools()


async def bell(bells: Bells) -> dict[str, Any]:
    async with asyncio.timeout(8):
        return await bells.get()


def make(kind: str, redis_url: str, **options: Any) -> BaseChannelLayer:
    if kind == "memory":
        return InMemoryChannelLayer(**options)
    backend = RedisLayer if kind == "redis" else RedisChannelLayer
    return backend(hosts=[redis_url], prefix="asgi", **options)


@pytest.mark.parametrize("kind", ["redis", "stock", "memory"])
async def test_every_message_is_one_bell(kind: str, redis_url: str, client: Any) -> None:
    layer = make(kind, redis_url)
    async with listening(layer) as (receiver, bells):
        for number in range(20):
            await layer.send("cq-tasks", run_message([f"{number:032x}"]))
        heard = [(await bell(bells))["ids"][0] for _ in range(20)]
        assert heard == [f"{number:032x}" for number in range(20)]
        assert receiver.received == 20
        assert receiver.outage.total == 0


async def test_an_idle_pop_that_times_out_is_no_outage(
    redis_url: str, client: Any, await_until: AwaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """With redis-py 8 the stock layer's socket time-out equals its blocking pop."""
    layer = RedisChannelLayer(hosts=[{"address": redis_url, "socket_timeout": 1}], prefix="asgi")
    layer.brpop_timeout = 1
    async with listening(layer) as (receiver, bells):
        await await_until(lambda: receiver.idle_timeouts >= 2)
        await layer.send("cq-tasks", BELL)
        assert await bell(bells) == BELL
        assert receiver.outage.total == 0
    assert not caplog.messages


async def test_it_still_hears_after_longer_idleness_than_any_default(
    redis_url: str, client: Any
) -> None:
    ours, stock = RedisLayer([redis_url]), RedisChannelLayer([redis_url])
    async with listening(ours) as (first, one), listening(stock) as (second, other):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.4):
                await one.get()
        await ours.send("cq-tasks", BELL)
        await stock.send("cq-tasks", BELL)
        assert await bell(one) == await bell(other) == BELL
        assert first.outage.total == second.outage.total == first.idle_timeouts == 0


async def test_garbage_is_counted_and_the_loop_lives(
    redis_url: str, client: Any, await_until: AwaitUntil
) -> None:
    layer = make("redis", redis_url)
    prefix = b"p" * 12
    async with listening(layer) as (receiver, bells):
        client.zadd(KEY, {b"": 1, prefix + b"\xc1": 2, prefix + b"\x93\x01\x02\x03": 3})
        await await_until(lambda: receiver.garbage == 3, timeout=8)
        assert receiver.outage.total == 0, "what nobody can read is no fault of Redis"
        await layer.send("cq-tasks", {"type": "os.system", "v": "x", "ids": "rm"})
        assert (await bell(bells))["type"] == "os.system"


async def test_a_key_of_the_wrong_type_is_waited_out(
    redis_url: str, client: Any, await_until: AwaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make("redis", redis_url)
    client.set(KEY, "not a sorted set")
    async with listening(layer) as (receiver, bells):
        await await_until(lambda: receiver.outage.total >= 3)
        client.delete(KEY)
        await layer.send("cq-tasks", BELL)
        assert await bell(bells) == BELL
    assert caplog.text.count("WRONGTYPE") == 1


async def test_a_flushed_redis_is_no_event(redis_url: str, client: Any) -> None:
    layer = make("redis", redis_url)
    async with listening(layer) as (receiver, bells):
        await layer.send("cq-tasks", BELL)
        await bell(bells)
        client.flushall()
        await layer.send("cq-tasks", BELL)
        assert await bell(bells) == BELL
        assert receiver.outage.total == 0


async def test_a_channel_that_was_full_is_emptied(redis_url: str, client: Any) -> None:
    layer = make("redis", redis_url, capacity=10)
    for _ in range(10):
        await layer.send("cq-tasks", BELL)
    async with listening(layer) as (_, bells):
        for _ in range(10):
            await bell(bells)


async def test_a_redis_that_dies_and_returns(
    redis_server: Server, await_until: AwaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cq.transport")
    layer = make("redis", redis_server.url)
    async with listening(layer) as (receiver, bells):
        await layer.send("cq-tasks", BELL)
        await bell(bells)
        await asyncio.to_thread(redis_server.kill)
        await await_until(lambda: receiver.outage.total >= 3)
        await asyncio.to_thread(redis_server.resume)
        await layer.send("cq-tasks", BELL)
        assert await bell(bells) == BELL
    said = [text for text in caplog.messages if "Listening on 'cq-tasks'" in text]
    assert len(said) == 2, said
    assert "works again" in said[1]


async def test_a_frozen_redis_holds_no_receiver(
    redis_server: Server,
    await_until: AwaitUntil,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connections stay open and silent: only a limit on every answer ends the wait."""
    monkeypatch.setattr(layers, "POP_MARGIN", 0.5)
    layer = RedisLayer(hosts=[redis_server.url])
    layer.brpop_timeout = 0.3
    async with listening(layer) as (receiver, bells):
        await layer.send("cq-tasks", BELL)
        await bell(bells)
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            await await_until(lambda: receiver.outage.total + receiver.idle_timeouts > 0)
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        await layer.send("cq-tasks", BELL)
        assert await bell(bells) == BELL
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_after_stop_a_bell_goes_back_to_the_others(redis_url: str, client: Any) -> None:
    layer = make("redis", redis_url)
    async with listening(layer) as (receiver, bells):
        await layer.send("cq-tasks", BELL)
        await bell(bells)
        receiver.stop()
        await layer.send("cq-tasks", BELL)
        async with listening(make("redis", redis_url)) as (_, others):
            assert await bell(others) == BELL
        assert bells.empty()
        assert receiver.handed_back == 1


async def test_stop_ends_the_wait_of_an_outage() -> None:
    receiver = Receiver(make("redis", "redis://127.0.0.1:1"), "default", lambda message: None)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(receiver.run())
        receiver.stop()


async def test_a_bell_that_fails_does_not_deafen_the_worker(redis_url: str, client: Any) -> None:
    layer, heard = make("redis", redis_url), asyncio.Event()

    def ring(message: dict[str, Any]) -> None:
        if not message["ids"]:
            raise ValueError("no ids")
        heard.set()

    receiver = Receiver(layer, "default", ring)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(receiver.run())
        await layer.send("cq-tasks", run_message([]))
        await layer.send("cq-tasks", BELL)
        await heard.wait()
        running.cancel()
    await layer.close_pools()  # type: ignore[attr-defined]


async def test_a_swallowed_cancellation_is_repeated(await_until: AwaitUntil) -> None:
    class Stubborn(InMemoryChannelLayer):
        """Ends only at the third cancellation, as a client may that just gets an answer."""

        waits = 0

        async def receive(self, channel: str) -> Any:
            for _ in range(3):
                self.waits += 1
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if self.waits == 3:
                        raise

    layer = Stubborn()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(Receiver(layer, "default", print).run())
        await await_until(lambda: layer.waits)
        running.cancel()
    assert layer.waits == 3

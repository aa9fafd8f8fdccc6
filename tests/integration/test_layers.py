"""RedisLayer on a real Redis: the stock layer's contract, with defaults that fit a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import redis
from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer

from cq import layers
from cq.layers import CAPACITY, EXPIRY, SOCKET_TIMEOUT, RedisLayer

Make = Callable[..., RedisLayer]


@pytest.fixture
def client(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


@pytest_asyncio.fixture
async def make(redis_url: str, client: Any) -> AsyncIterator[Make]:
    made = []

    def make(**options: Any) -> RedisLayer:
        made.append(RedisLayer(hosts=[redis_url], **options))
        return made[-1]

    yield make
    for layer in made:
        await layer.close_pools()


def test_its_defaults_fit_a_queue(settings: Any) -> None:
    settings.CQ = {"PREFIX": "shop"}
    layer = RedisLayer()
    assert (layer.expiry, layer.capacity) == (EXPIRY, CAPACITY)
    assert layer.prefix == "shop:"
    assert layer.hosts == [{"address": "redis://localhost:6379", "socket_timeout": SOCKET_TIMEOUT}]


def test_what_the_project_says_wins_and_its_settings_stay_as_they_are() -> None:
    host = {"address": "redis://10.0.0.1:6379", "socket_timeout": 7}
    other = {"host": "10.0.0.2", "port": 6379}
    layer = RedisLayer([host, other], "x", 60, 100, group_expiry=5)
    assert layer.hosts == [host, {**other, "socket_timeout": SOCKET_TIMEOUT}]
    assert (layer.prefix, layer.expiry, layer.capacity, layer.group_expiry) == ("x", 60, 100, 5)
    assert other == {"host": "10.0.0.2", "port": 6379}


async def test_a_pop_that_is_never_answered_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RedisChannelLayer, "_brpop_with_clean", never)
    monkeypatch.setattr(layers, "POP_MARGIN", 0.1)
    layer = make()
    layer.brpop_timeout = 0
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await layer.receive("cq-tasks")


async def test_messages_arrive_in_order_and_only_once(make: Make) -> None:
    layer, other = make(), make()
    for number in range(20):
        await layer.send("cq-tasks", {"type": "cq.run", "n": number})
    assert [(await other.receive("cq-tasks"))["n"] for _ in range(20)] == list(range(20))


async def test_all_that_waits_is_received_at_once_and_in_order(make: Make, client: Any) -> None:
    layer, other = make(), make()
    for number in range(20):
        await layer.send("cq-tasks", {"type": "cq.run", "n": number})
    client.config_resetstat()
    assert [message["n"] for message in await other.receive_many("cq-tasks", 15)] == [*range(15)]
    assert [message["n"] for message in await other.receive_many("cq-tasks")] == [*range(15, 20)]
    assert client.info("commandstats")["cmdstat_zpopmin"]["calls"] == 2
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(other.receive_many("cq-tasks"))
        await layer.send("cq-tasks", {"type": "cq.run", "n": 20})
    assert [message["n"] for message in waiting.result()] == [20]
    assert client.keys() == []


async def test_the_stock_layer_reads_what_it_sends_and_the_reverse(
    make: Make, redis_url: str
) -> None:
    ours = make(prefix="asgi")
    stock = RedisChannelLayer(hosts=[redis_url])
    await ours.send("cq-tasks.a", {"from": "ours"})
    assert await stock.receive("cq-tasks.a") == {"from": "ours"}
    await stock.send("cq-tasks.b", {"from": "stock"})
    assert await ours.receive("cq-tasks.b") == {"from": "stock"}
    await stock.close_pools()


async def test_a_full_channel_refuses(make: Make) -> None:
    layer = make(capacity=3, channel_capacity={"cq-tasks.big": 5})
    for _ in range(3):
        await layer.send("cq-tasks", {})
    with pytest.raises(ChannelFull):
        await layer.send("cq-tasks", {})
    for _ in range(5):
        await layer.send("cq-tasks.big", {})
    with pytest.raises(ChannelFull):
        await layer.send("cq-tasks.big", {})


async def test_old_messages_make_room_and_the_channel_expires(make: Make, client: Any) -> None:
    layer = make(capacity=2, expiry=100, prefix="t:")
    client.zadd("t:cq-tasks", {b"of yesterday": 1, b"and before": 2})
    await layer.send("cq-tasks", {"n": 1})
    assert client.zcard("t:cq-tasks") == 1
    assert 90 < client.ttl("t:cq-tasks") <= 100


async def test_a_process_local_channel_works_as_in_the_stock_layer(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    async with asyncio.timeout(5):
        assert await layer.receive(channel) == {"n": 1}


async def test_groups_work_as_in_the_stock_layer(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.group_add("cq.workers", channel)
    await layer.group_send("cq.workers", {"n": 1})
    async with asyncio.timeout(5):
        assert await layer.receive(channel) == {"n": 1}


async def test_encryption_keys_are_honoured(make: Make, client: Any) -> None:
    layer = make(symmetric_encryption_keys=["secret"], prefix="e:")
    await layer.send("cq-tasks", {"word": "in the open"})
    assert b"in the open" not in client.zrange("e:cq-tasks", 0, -1)[0]
    assert await layer.receive("cq-tasks") == {"word": "in the open"}


async def test_a_name_outside_the_rules_is_refused(make: Make) -> None:
    with pytest.raises(TypeError):
        await make().send("not a channel", {})


async def test_a_swallowed_cancellation_ends_a_receive_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    popping = asyncio.Event()

    async def swallow(*args: Any) -> None:
        popping.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return  # as `wait_for` does up to Python 3.11 when the answer comes at that moment

    monkeypatch.setattr(RedisChannelLayer, "_brpop_with_clean", swallow)
    layer = make()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        receiving = group.create_task(layer.receive("cq-tasks"))
        await popping.wait()
        receiving.cancel()
    assert receiving.cancelled()

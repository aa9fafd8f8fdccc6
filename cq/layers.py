"""
The task layer: the stock Redis layer of channels-redis, with defaults that fit a queue.

Name it in CHANNEL_LAYERS as "cq.layers.RedisLayer"; every option of the stock layer can be
given. Nothing in cq needs it: any channel layer carries doorbells, this one never loses an
idle receiver, keeps bells for a day, sends each in one round trip instead of four and
receives all that wait at once.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer

from cq import conf

# redis-py 8 gives up on any answer after 5 s, which is just how long the stock layer's
# blocking pop waits: an idle receiver would fail for ever. Its limit also costs a third of
# the time of a command (an asyncio task each). So none, but for the pop: its answer is due
# after 5 s, and a receiver whose peer has vanished must not wait for ever.
SOCKET_TIMEOUT = None
POP_MARGIN = 15.0
EXPIRY = 86_400
CAPACITY = 100_000
MANY = 1000

_SEND = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""


class RedisLayer(RedisChannelLayer):  # type: ignore[misc]
    """A Redis (or Valkey) channel layer for tasks."""

    hosts: list[dict[str, Any]]

    def __init__(
        self,
        hosts: Iterable[Any] | None = None,
        prefix: str | None = None,
        expiry: int = EXPIRY,
        capacity: int = CAPACITY,
        **options: Any,
    ) -> None:
        super().__init__(
            hosts=hosts,
            prefix=f"{conf.current().prefix}:" if prefix is None else prefix,
            expiry=expiry,
            capacity=capacity,
            **options,
        )
        self.hosts = [{"socket_timeout": SOCKET_TIMEOUT, **host} for host in self.hosts]

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to a channel; raises ChannelFull when it holds `capacity` messages."""
        if "!" in channel:
            await super().send(channel, message)
            return
        self.require_valid_channel_name(channel)
        now = time.time()
        connection = self.connection(next(self._send_index_generator))
        taken = await connection.eval(
            _SEND,
            1,
            self.prefix + channel,
            int(now) - int(self.expiry),
            self.get_capacity(channel),
            now,
            self.serialize(message),
            int(self.expiry),
        )
        if not taken:
            raise ChannelFull(channel)

    async def receive_many(self, channel: str, limit: int = MANY) -> list[Any]:
        """
        Wait for a message; return it with all that lies behind it, the oldest first.

        One round trip for each lot and one more to wait, where the stock layer takes four for
        each message. It keeps no copy of what it has handed out, so what a receiver holds
        that is killed is gone: right for bells, and for nothing that must arrive. What cannot
        be read is returned as the bytes that it is.
        """
        self.require_valid_channel_name(channel)
        if "!" in channel or len(self.hosts) > 1:
            return [await self.receive(channel)]
        connection, key = self.connection(0), self.prefix + channel
        while True:
            async with asyncio.timeout(POP_MARGIN):
                lot = await connection.zpopmin(key, limit)
            if not lot:
                async with asyncio.timeout(self.brpop_timeout + POP_MARGIN):
                    popped = await connection.bzpopmin(key, timeout=self.brpop_timeout)
                lot = [popped[1:]] if popped else []
            if lot:
                return [self._read(member) for member, _ in lot]

    def _read(self, member: bytes) -> Any:
        try:
            return self.deserialize(member)
        except Exception:  # noqa: BLE001 - one that nobody can read must not cost the others
            return member

    async def _brpop_with_clean(self, index: int, channel: str, timeout: float) -> bytes | None:
        async with asyncio.timeout(timeout + POP_MARGIN):
            member: bytes | None = await super()._brpop_with_clean(index, channel, timeout)
        # Up to Python 3.11 a client may swallow a cancellation that comes just as it gets its
        # answer; a consumer would then never end, nor the server that waits for it. What was
        # popped lies in the backup, and comes again.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return member

    async def _clean_receive_backup(self, index: int, channel: str) -> None:
        # The stock layer runs this as a task that nobody awaits: an outage in that moment
        # would print a traceback. What stays in the backup comes again, and is but a bell.
        # The next receive waits for it, so it has to end as well.
        with suppress(Exception):
            async with asyncio.timeout(POP_MARGIN):
                await super()._clean_receive_backup(index, channel)

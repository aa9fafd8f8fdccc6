"""Channels alone: messages to `runworker`, with no rows and no acknowledgement."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import django
from asgiref.sync import async_to_sync

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, module

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.contenders.django_settings")
django.setup()

from channels.consumer import AsyncConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ChannelNameRouter, ProtocolTypeRouter  # noqa: E402


class Bench(AsyncConsumer):
    """The bodies, one handler each; a nap must not hold up the next message."""

    def __init__(self) -> None:
        self.naps: set[asyncio.Task[None]] = set()

    async def noop(self, message: dict[str, Any]) -> None:
        """Do nothing."""
        meter.bump()

    async def nap(self, message: dict[str, Any]) -> None:
        """Wait 50 ms."""
        rest = asyncio.get_running_loop().create_task(self._nap())
        self.naps.add(rest)
        rest.add_done_callback(self.naps.discard)

    async def _nap(self) -> None:
        async with SLOTS:
            await asyncio.sleep(0.05)
        meter.bump()

    async def stamp(self, message: dict[str, Any]) -> None:
        """Keep when it began."""
        meter.stamp(message["args"][0])

    async def echo(self, message: dict[str, Any]) -> None:
        """Give the argument back."""
        await self.channel_layer.send(message["reply"], {"value": message["args"][0]})


SLOTS = asyncio.Semaphore(50)
application = ProtocolTypeRouter({"channel": ChannelNameRouter({"bench": Bench.as_asgi()})})


class PlainChannels(Contender):
    """What cq would be without rows."""

    title = "Channels runworker"
    store = "Redis"
    settings = (
        "2 × `runworker`, `RedisChannelLayer` with a capacity of 100,000; 50 naps at once in each; "
        "the result is a message to a channel of the sender. A message may be lost or come twice."
    )
    kinds = ("async",)

    def prepare(self) -> None:
        self.layer = get_channel_layer()

    def worker_commands(self, load: Load) -> list[Command]:
        options = ["--settings", "benchmarks.contenders.django_settings", "-v", "0"]
        return [module("django", "runworker", "bench", *options)] * 2

    def enqueue(self, body: str, *args: Any) -> Any:
        return async_to_sync(self._send)(body, *args)

    async def aenqueue(self, body: str, *args: Any) -> Any:
        return await self._send(body, *args)

    async def _send(self, body: str, *args: Any) -> tuple[str, tuple[Any, ...]]:
        if body != "echo":
            await self.layer.send("bench", {"type": body, "args": args})
        return body, args

    def result(self, handle: Any) -> Any:
        async def ask() -> Any:
            reply = await self.layer.new_channel()
            await self.layer.send("bench", {"type": "echo", "args": handle[1], "reply": reply})
            return (await self.layer.receive(reply))["value"]

        return async_to_sync(ask)()


contender = PlainChannels()

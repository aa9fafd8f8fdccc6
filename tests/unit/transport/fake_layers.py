"""Channel layers that need no server: one that records, one that fails, one that is full."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer


class RecordingLayer(BaseChannelLayer):
    """Keeps what is sent; `gate` holds sends back, `errors` are raised first."""

    made: ClassVar[list[RecordingLayer]] = []

    def __init__(self, errors: list[Exception] | None = None) -> None:
        super().__init__()
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.errors = list(errors or [])
        self.tries = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.made.append(self)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        await self._answer()
        self.require_valid_channel_name(channel)
        self.messages.append((channel, message))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._answer()
        self.events.append((group, message))

    async def _answer(self) -> None:
        self.tries += 1
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


class BrokenLayer(RecordingLayer):
    """Fails for ever."""

    async def _answer(self) -> None:
        self.tries += 1
        raise ConnectionRefusedError("nobody listens")


class FullLayer(RecordingLayer):
    """Has no room."""

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        self.tries += 1
        raise ChannelFull(channel)

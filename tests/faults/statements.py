"""
A link that counts the statements which clients send to PostgreSQL, whoever they are.

A statement is one Query or one Execute of the protocol; the start of a session is none.
"""

from __future__ import annotations

import asyncio
import struct
from urllib.parse import urlsplit

from tests.faults.links import Link, Pipe

_COUNTED = b"QE"
_PROTOCOL = 196_608  # 3.0; requests for encryption bear other numbers


class CountingLink(Link):
    """A link to PostgreSQL; `statements` counts what has passed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(parts.hostname or "127.0.0.1", parts.port or 5432)
        self.statements = 0
        self._left: dict[Pipe, bytes] = {}
        self._greeted: set[Pipe] = set()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, pipe: Pipe) -> None:
        if writer is pipe.far:
            self._left[pipe] = self._count(pipe, self._left.get(pipe, b"") + data)
        await super()._pass(data, writer, pipe)

    def _count(self, pipe: Pipe, data: bytes) -> bytes:
        """Count the whole messages of these bytes; what is left is the beginning of the next."""
        while True:
            kind = 1 if pipe in self._greeted else 0
            if len(data) < kind + 4:
                return data
            (length,) = struct.unpack_from("!i", data, kind)
            if len(data) < kind + length:
                return data
            if kind:
                self.statements += data[:1] in _COUNTED
            elif struct.unpack_from("!i", data, 4) == (_PROTOCOL,):
                self._greeted.add(pipe)
            data = data[kind + length :]

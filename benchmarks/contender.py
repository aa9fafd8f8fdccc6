"""
The protocol of a contender: what the driver asks of cq and of every peer alike.

A contender is one module in `benchmarks.contenders` with a `contender` object of a subclass.
What a peer does not have stays NotOffered, and the tables show a dash. The methods run in the
contender's own environment, with DATABASE_URL, REDIS_URL and an empty database.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

Load = Literal["noop", "nap"]
Command = Sequence[str]


class NotOffered(Exception):
    """The contender has no such thing."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The table of a contender that keeps tasks as rows, for the backlog."""

    table: str
    new_values: dict[str, str]
    """SQL for columns that must differ in each copy of a row."""
    skipped: tuple[str, ...] = ()
    """Columns that the database fills: serial numbers and generated ones."""


class Contender:
    """
    One way to run tasks in the background.

    Bodies are named `noop` (with the kinds `""`, `_sync`, `_atomic`), `nap` (50 ms, then
    counted), `stamp` (keeps when it began) and `echo` (returns its argument).
    """

    title: ClassVar[str]
    store: ClassVar[Literal["PostgreSQL", "Redis"]]
    settings: ClassVar[str]
    """What was set, and why that is fair, in a sentence for the page."""
    kinds: ClassVar[tuple[str, ...]] = ("sync",)
    """The kinds of no-op that it runs, the one of the common table first."""
    rows: ClassVar[Rows | None] = None

    def prepare(self) -> None:
        """Make what the queue needs in the empty database."""

    def worker_commands(self, load: Load) -> list[Command]:
        """The commands that together are two worker processes; `nap` asks for 100 at once."""
        raise NotOffered

    def enqueue(self, body: str, *args: Any) -> Any:
        """Enqueue one task from synchronous code and return what `result` takes."""
        raise NotOffered

    async def aenqueue(self, body: str, *args: Any) -> Any:
        """Enqueue one task from a coroutine."""
        raise NotOffered

    def bulk(self, body: str, count: int) -> None:
        """Enqueue so many tasks with the call for many."""
        raise NotOffered

    def result(self, handle: Any) -> Any:
        """Wait for the result of an enqueued task."""
        raise NotOffered

    def fan_out(self, children: int) -> None:
        """Start so many no-ops and, once after all of them, `join` (it calls meter.stamp)."""
        raise NotOffered

    def recorded(self) -> dict[str, float]:
        """Figures from the contender's own records, after a run."""
        return {}

    def close(self) -> None:
        """Let go of connections."""


class OnLoop(Contender):
    """
    A contender whose producer is a coroutine.

    Synchronous calls go through one loop that is kept, as a careful caller would.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the producer, made at the first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def enqueue(self, body: str, *args: Any) -> Any:
        return self.loop.run_until_complete(self.aenqueue(body, *args))

    def result(self, handle: Any) -> Any:
        return self.loop.run_until_complete(self.aresult(handle))

    async def aresult(self, handle: Any) -> Any:
        """Wait for the result in a coroutine."""
        raise NotOffered


def loop_of(contender: Contender) -> asyncio.AbstractEventLoop:
    """The loop on which a contender's coroutines run."""
    if isinstance(contender, OnLoop):
        return contender.loop
    return asyncio.new_event_loop()


def script(name: str) -> str:
    """The path of a console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def module(name: str, *arguments: str) -> Command:
    """The command that runs a module with this environment's Python."""
    return [sys.executable, "-m", name, *arguments]


def redis_url() -> str:
    """Where the private Redis listens."""
    return os.environ["REDIS_URL"]


def database_url() -> str:
    """Where the private PostgreSQL listens, with the database of this run."""
    return os.environ["DATABASE_URL"]


def django_database() -> dict[str, Any]:
    """The same as an entry of Django's DATABASES."""
    url = urlsplit(database_url())
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.hostname,
        "PORT": str(url.port or 5432),
        "CONN_MAX_AGE": None,
    }


def poll(ready: Any, *, every: float = 0.002, within: float = 30.0) -> Any:
    """Ask until the answer is true, for contenders whose results must be polled."""
    deadline = time.monotonic() + within
    while not (answer := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"No result within {within:g} s. Look at the worker's output.")
        time.sleep(every)
    return answer

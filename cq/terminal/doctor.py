"""
The examination: one round trip through each part that a task passes on its way to a page.

Enters: what to examine and for how long to wait. Leaves: a Finding for each part, in the
order settings, database, layers, worker, socket, with the time it took, or with what is broken and
what to do. Beside one task of its own, which is pruned a minute later, it changes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from channels.layers import BaseChannelLayer
from channels.routing import get_default_application
from channels.security.websocket import AllowedHostsOriginValidator
from django.db import Error, connections
from django.utils import timezone

from cq import conf
from cq.aio import from_sync
from cq.errors import CQError, WaitTimeout
from cq.models import Task, Worker
from cq.models.queries import database
from cq.models.repeating import database_now
from cq.tasks import answer
from cq.terminal.reaching import missing_migrations
from cq.terminal.socket_talk import Frame, SocketFailure, address_of, ask_application, ask_server
from cq.terminal.text import one_line
from cq.transport.own_layer import crosses_processes, is_configured, make_layer
from cq.web.tokens import watch_token
from cq.worker.embedded import embedded_worker
from cq.workflow.results import wait

OK, NOTE, BROKEN, SKIPPED = "ok", "note", "BROKEN", "skipped"
LARGEST_SKEW = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one part; `seconds` is the round trip, `remedy` what to do about it."""

    part: str
    state: str
    text: str
    seconds: float | None = None
    remedy: str = ""


class Broken(Exception):
    """A part does not work: what was seen, and the remedy."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


class Doctor:
    """Examines one part after the other, and remembers the task that it sent on its way."""

    def __init__(self, *, queue: str = "default", timeout: float = 10.0, url: str = "") -> None:
        self._queue = queue
        self._timeout = timeout
        self._url = url
        self._probe: Task | None = None

    def examine(self) -> Iterator[Finding]:
        """Examine everything; what cannot be examined after a failure is skipped."""
        if problems := conf.problems():
            text = " ".join(problem.message for problem in problems)
            hints = " ".join(problem.hint for problem in problems)
            yield Finding("settings", BROKEN, text, remedy=hints)
        if any(problem.kind != "alias" for problem in problems):
            return
        found = self._finding("database", self._database)
        yield found
        has_rows = found.state != BROKEN
        settings = conf.current()
        for part, alias in (("layer", settings.channel_layer), ("pages", settings.browser_layer)):
            yield self._layer(part, alias)
        if not has_rows:
            for part in ("worker", "socket"):
                yield Finding(part, SKIPPED, "It needs the database.")
            return
        try:
            yield self._finding("worker", self._worker)
            yield self._finding("socket", self._socket)
        finally:
            self._clear_away()

    def _finding(self, part: str, look: Callable[[], str]) -> Finding:
        began = time.perf_counter()
        try:
            text = look()
        except Broken as problem:
            return Finding(part, BROKEN, str(problem), remedy=problem.remedy)
        except Error as problem:
            text = f"The database gave an error: {one_line(str(problem))}"
            return Finding(part, BROKEN, text, remedy="Start it, or correct DATABASES.")
        return Finding(part, OK, text, time.perf_counter() - began)

    # --- database

    def _database(self) -> str:
        connection = connections[database()]
        now = database_now(database())
        skew = abs((now - timezone.now()).total_seconds())
        if missing := missing_migrations():
            raise Broken(
                f"It lacks {len(missing)} migration(s) of cq: {', '.join(missing)}.",
                "Run python manage.py migrate.",
            )
        Task.objects.using(database()).filter(pk=uuid4()).exists()
        if skew > LARGEST_SKEW:
            raise Broken(
                f"Its clock and that of this host are {skew:.1f} s apart.",
                "Let both keep their time by NTP; due times go by the database's clock.",
            )
        return f"{connection.vendor}, migrated, clocks {skew * 1000:.0f} ms apart"

    # --- layers

    def _layer(self, part: str, alias: str | None) -> Finding:
        is_task_layer = part == "layer"
        instead = "workers find tasks by polling" if is_task_layer else "pages poll"
        if alias is None:
            return Finding(part, NOTE, f"There is none: {instead}.")
        if not is_configured(alias):
            key = "CHANNEL_LAYER" if is_task_layer else "BROWSER_LAYER"
            text = f"CHANNEL_LAYERS has no {alias!r}, which CQ[{key!r}] names."
            return Finding(part, BROKEN, text, remedy=f"Add it, or correct CQ[{key!r}].")
        if not crosses_processes(alias):
            return Finding(part, NOTE, f"{alias!r} is in memory: it reaches its own process alone.")
        return self._finding(part, lambda: self._cross(alias, is_task_layer))

    def _cross(self, alias: str, is_task_layer: bool) -> str:
        try:
            layer = from_sync(_there_and_back)(alias, is_task_layer, self._timeout)
        except Exception as error:
            # Any layer's any client may raise anything; it is what was asked for.
            reason = one_line(str(error)) or f"no answer within {self._timeout:g} s"
            raise Broken(
                f"Nothing comes back from {alias!r}: {type(error).__name__}: {reason}.",
                f"Start its server, or correct CHANNEL_LAYERS[{alias!r}]. Tasks run all the same, "
                "found by polling."
                if is_task_layer
                else f"Start its server, or correct CHANNEL_LAYERS[{alias!r}]. Until then pages "
                "read the rows.",
            ) from error
        return f"{alias!r}, {type(layer).__name__}"

    # --- worker

    def _worker(self) -> str:
        probe = self._probe = answer.using(
            queue=self._queue, priority=100, result_ttl=60, expires=timedelta(minutes=1)
        ).delay()
        problem, remedy = self._missing_worker()
        if problem:
            raise Broken(problem, remedy)
        try:
            wait(probe, self._timeout)
        except WaitTimeout as late:
            probe.refresh_from_db()
            raise Broken(
                f"A worker lives, but a task for it was {probe.get_status_display()} after "
                f"{self._timeout:g} s.",
                "Look at the worker's output: all its slots may be taken, or its process hangs.",
            ) from late
        if probe.status != Task.STATUS_SUCCESS:
            raise Broken(
                f"The task ended as {probe.get_status_display()}: {one_line(probe.error or '')}",
                "Mend what the error names, then restart the workers.",
            )
        waited = (probe.started or probe.run_at) - probe.run_at
        return (
            f"queue {self._queue!r}, {one_line(str(probe.result))}, "
            f"started after {waited.total_seconds() * 1000:.0f} ms"
        )

    def _missing_worker(self) -> tuple[str, str]:
        """Say why no worker can take the task; nothing when one can."""
        start = f"Start one with: python manage.py cq_runworker -Q {self._queue}"
        settings = conf.current()
        fresh = database_now(database()) - timedelta(seconds=settings.lease)
        alive = Worker.objects.using(database()).filter(alive=True)
        live = [worker for worker in alive if worker.beat_at >= fresh]
        if not live:
            if alive:
                silent = f"{len(alive)} gave no heartbeat for {settings.lease:g} s"
                return f"No worker lives: {silent}.", start
            return "No worker lives.", start
        taking = [w for w in live if w.queues is None or self._queue in w.queues]
        if not taking:
            return f"None of {len(live)} live worker(s) takes the queue {self._queue!r}.", start
        if not any(answer.name in worker.names for worker in taking):
            return (
                f"No live worker knows {answer.name!r}: they run an older release of cq.",
                "Restart the workers.",
            )
        return "", ""

    def _clear_away(self) -> None:
        """A probe that nobody ran must not run later."""
        with suppress(CQError, Error, Task.DoesNotExist):
            if self._probe is not None:
                self._probe.refresh_from_db()
                if not self._probe.is_terminal:
                    self._probe.revoke()

    # --- socket

    def _socket(self) -> str:
        if self._probe is None:
            raise Broken("There is no task to watch.", "Mend the worker's part first.")
        id, token = self._probe.id, watch_token(self._probe, ttl=60)
        try:
            if self._url:
                parts = address_of(self._url)
                frame = self._within(lambda: ask_server(parts, id, token))
                where = f"at {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            else:
                application = _application()
                frame = self._within(lambda: _ask_here(application, id, token))
                where = "in this process; --url asks a server"
        except TimeoutError:
            raise Broken(
                f"The socket did not answer within {self._timeout:g} s.",
                "Look at the web process; a proxy before it must pass WebSockets on.",
            ) from None
        except SocketFailure as problem:
            raise Broken(str(problem), self._remedy()) from problem
        if frame.get("type") != "snap":
            said = one_line(str(frame.get("message") or frame))
            raise Broken(
                f"The socket refused to show a task: {said}",
                "Let both sides use one database and one SECRET_KEY.",
            )
        return where

    def _within(self, ask: Callable[[], Awaitable[Frame]]) -> Frame:
        async def asked() -> Frame:
            async with asyncio.timeout(self._timeout):
                return await ask()

        return from_sync(asked)()

    def _remedy(self) -> str:
        if self._url:
            return (
                "Serve ASGI_APPLICATION with an ASGI server, let the proxy pass WebSockets on, and "
                "list the host in ALLOWED_HOSTS."
            )
        return (
            'Write ASGI_APPLICATION = "cq.asgi.application", or add '
            "cq.routing.websocket_urlpatterns to the websocket URLRouter of yours."
        )


def _application() -> Any:
    try:
        return get_default_application()
    except Exception as error:
        # The project's own asgi.py is imported here.
        raise Broken(
            f"ASGI_APPLICATION cannot be used: {type(error).__name__}: {one_line(str(error))}",
            'Write ASGI_APPLICATION = "cq.asgi.application", or correct yours.',
        ) from error


async def _ask_here(application: Any, task: UUID, token: str) -> Frame:
    embedded_worker.withhold()
    allowed = AllowedHostsOriginValidator(application).allowed_origins
    hosts = [str(host).lstrip(".") for host in allowed if host != "*"]
    return await ask_application(application, f"http://{[*hosts, 'localhost'][0]}", task, token)


async def _there_and_back(alias: str, is_task_layer: bool, seconds: float) -> BaseChannelLayer:
    """Send a message to a channel, or to a group, of which nobody else knows; receive it."""
    layer = make_layer(alias, connect_timeout=seconds)
    word = uuid4().hex
    message = {"type": "cq.doctor", "word": word}
    try:
        async with asyncio.timeout(seconds):
            if is_task_layer:
                channel = f"cq-doctor.{word}"
                await layer.send(channel, message)
            else:
                channel = await layer.new_channel()
                await layer.group_add(f"cq-doctor.{word}", channel)
                await layer.group_send(f"cq-doctor.{word}", message)
            received = await layer.receive(channel)
        if received.get("word") != word:
            raise ValueError("another message came back than was sent")
    finally:
        with suppress(Exception):
            await layer.close_pools() if hasattr(layer, "close_pools") else None
    return layer

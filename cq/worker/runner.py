"""
The runner: one worker process, assembled from its services, started and drained in order.

Receivers ring, the claimer claims, the consumer executes, the completer writes. The
heartbeat begins before the first claim and ends after the last completion, so that a
worker never looks dead while it still holds something.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db import Error, connections

from cq import conf
from cq.aio import Lane
from cq.models.queries import database
from cq.models.sessions import own_sessions
from cq.models.transitions import Claimed, Want
from cq.progress import publisher
from cq.transport import dispatcher
from cq.transport.groups import AUDIENCE, kind_of, roots_of
from cq.transport.own_layer import crosses_processes
from cq.worker.attempts import Attempts
from cq.worker.claimer import Claimer
from cq.worker.completer import Completer
from cq.worker.control import Control
from cq.worker.health import SILENCE, HealthProbe
from cq.worker.membership import Membership
from cq.worker.memory import peak_bytes
from cq.worker.options import WorkerOptions
from cq.worker.pruner import Pruner
from cq.worker.receivers import Receivers
from cq.worker.rescuer import Rescuer
from cq.worker.scheduler import Scheduler
from cq.worker.service import ended, outlive
from cq.worker.sqlite_watch import SqliteWatch
from cq.worker.tallier import Tallier
from cq.worker.watchdog import Watchdog
from cq.workflow import voided
from cq.workflow.claim import claim_named
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

# After the grace: for bodies to answer their cancellation, and for the last completions.
# Together they stay below the five seconds that process managers are told to allow.
_CANCEL_SECONDS = 1.0
_SAVE_SECONDS = 2.0
_CLOSE_SECONDS = 1.0

Service = Callable[[], Awaitable[None]]


class Runner:
    """One worker process. `run()` returns when it has been stopped and drained."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        settings = conf.current()
        self._loop = asyncio.get_running_loop()
        self._lanes = {
            name: Lane(f"cq-{name}", own_sessions) for name in ("claim", "complete", "engine")
        }
        self._flush_wanted = asyncio.Event()
        self.recorder = Recorder(
            settings.max_lines, lambda: self._from_any_thread(self._flush_wanted.set)
        )
        self.tallier = Tallier(self._lanes["engine"].run, lambda: self.membership.worker)
        self.completer = Completer(
            self._lanes["complete"],
            self.recorder,
            lambda count: self._check(),
            count=self.tallier.count,
        )
        self.attempts = Attempts(
            options,
            self,
            self.recorder,
            put=self.completer.put,
            discard=lambda buffer: self._lanes["complete"].executor.submit(
                self.recorder.settle, buffer
            ),
            changed=self._check,
        )
        self.watchdog = Watchdog(
            self._loop, stall=settings.loop_stall, running=self.attempts.running_names
        )
        self.membership = self._make_membership()
        self.probe = HealthProbe(self._readiness, silence=max(SILENCE, 3 * settings.poll))
        self.claimer = self._make_claimer()
        self.stop_requested = asyncio.Event()
        self.ready = asyncio.Event()
        self._changed = asyncio.Event()
        self._receivers: Receivers | None = None
        self._is_quiet = False
        self.was_forced = False
        self.leaves_work = False
        """Whether something is stuck here that would hold up the end of the process."""

    def _make_membership(self) -> Membership:
        return Membership(
            self._lanes["engine"],
            self.options,
            self.attempts.slots.names,
            held=self.attempts.held,
            void=self.attempts.void,
            renewed=lambda: self.claimer.ring(),
            stalled_for=self.watchdog.stalled_for,
        )

    def _make_claimer(self) -> Claimer:
        return Claimer(
            self._lanes["claim"],
            self._room,
            self._start,
            worker=lambda: self.membership.worker,
            held=self._tokens,
            queues=self.options.queues,
            tick=self.probe.tick,
            idle=lambda: self._changed.set(),
        )

    # --- life -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain: claim no more, end what runs within the grace, then return from `run`."""
        self.stop_requested.set()
        self._changed.set()

    def force(self) -> None:
        """Hand back what runs now instead of waiting for it."""
        self.was_forced = True
        self.stop()

    def quiet(self) -> None:
        """Keep what runs and claim nothing, until stopped."""
        logger.info("Quiet: nothing is claimed any more; %d run on.", self.attempts.awaited)
        self._is_quiet = True
        self.membership.say("quiet")

    async def run(self) -> None:
        """Be a worker until stopped; returns when everything is written or handed back."""
        try:
            await self.membership.join(self.stop_requested)
            voided.listen(self.membership.look_at_tokens)
            dispatcher.attach_loop(self._loop, self.claimer.ring, self.options.queues)
            self.watchdog.start()
            async with asyncio.TaskGroup() as group:
                await self._serve(group)
        finally:
            self.watchdog.stop()
            dispatcher.detach_loop()
            voided.unlisten(self.membership.look_at_tokens)
            await self.membership.leave()
            await self.attempts.close()
            for lane in self._lanes.values():
                lane.close()
            if not self.leaves_work:
                await asyncio.to_thread(self._join_threads)

    def _join_threads(self) -> None:
        # They end by themselves; the process must not end while they close their sessions.
        deadline = time.monotonic() + _CLOSE_SECONDS
        self.attempts.executor.join(deadline)
        for lane in self._lanes.values():
            lane.executor.join(deadline)

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        services = [
            group.create_task(outlive(name, run), name=name)
            for name, run in self._services().items()
        ]
        completer = group.create_task(self.completer.run(), name="completer")
        claimer = group.create_task(self.claimer.run(), name="claimer")
        self.ready.set()
        self.claimer.ring()
        try:
            await self._until_stopped()
            deadline = self._loop.time() + self.options.grace
            self.probe.drain()
            self.membership.say("draining")
            self.claimer.stop()
            if self._receivers is not None:
                self._receivers.stop()
            await self._drain(claimer, deadline)
            await self._save(deadline)
        finally:
            self.leaves_work = self._holds_work
            await ended(claimer, completer, *services)

    def _services(self) -> dict[str, Service]:
        lane, settings = self._lanes["engine"], conf.current()
        services: dict[str, Service] = {
            "membership": self.membership.run,
            "recorder": self._flush_for_ever,
            "rescuer": Rescuer(lane, lambda: self.membership.worker).run,
            "pruner": Pruner(lane.run).run,
            "tallier": self.tallier.run,
        }
        if self.options.scheduler and not self.options.burst:
            services["scheduler"] = Scheduler(lane.run).run
        if self.options.claims and connections[database()].vendor == "sqlite":
            services["SQLite watch"] = SqliteWatch(self._lanes["claim"], self.claimer.ring).run
        layer = settings.channel_layer
        if self.options.claims and layer is not None and crosses_processes(layer):
            self._receivers = Receivers(layer, self.options.queues, self.claimer.ring)
            services["receivers"] = self._receivers.run
        if settings.browser_layer is not None and crosses_processes(settings.browser_layer):
            services["control"] = Control(settings.browser_layer, self._on_control).run
        return services

    # --- stopping ---------------------------------------------------------------------------

    async def _until_stopped(self) -> None:
        """Wait for a stop, or with `--burst` for the moment when nothing is left to do."""
        while not self.stop_requested.is_set():
            if self.options.burst and self.claimer.is_idle and not self._holds_work:
                return
            self._changed.clear()
            await self._changed.wait()

    @property
    def _holds_work(self) -> bool:
        return bool(self.attempts.tokens or self.completer.unsaved)

    async def _drain(self, claimer: "asyncio.Task[None]", deadline: float) -> None:
        """Wait for running attempts up to the deadline, then hand back what still runs."""

        def is_drained() -> bool:
            # A claim in flight may still bring tasks.
            return claimer.done() and not self.attempts.awaited

        claimer.add_done_callback(lambda _: self._changed.set())
        await self._until(lambda: is_drained() or self.was_forced, deadline)
        if is_drained():
            return
        logger.warning("%d tasks have not ended: they are handed back.", self.attempts.awaited)
        self.attempts.hand_back()
        await self._until(is_drained, self._loop.time() + _CANCEL_SECONDS)
        self.attempts.give_up()

    async def _until(self, is_over: Callable[[], bool], deadline: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not is_over():
                    self._changed.clear()
                    await self._changed.wait()

    async def _save(self, deadline: float) -> None:
        """Write what ended; in an outage wait for the database as long as the grace allows."""
        earliest = self._loop.time() + _SAVE_SECONDS
        try:
            async with asyncio.timeout_at(earliest if self.was_forced else max(deadline, earliest)):
                await self.completer.drain()
                await self._lanes["complete"].run(self.recorder.flush)
            await self._lanes["engine"].run(self.tallier.flush)
        except (Error, TimeoutError):
            logger.error(
                "%d ended tasks could not be written: the database does not answer. They run "
                "again once it is seen that this process has gone.",
                self.completer.unsaved,
            )

    # --- claiming and executing ------------------------------------------------------------

    def _room(self) -> list[Want]:
        limit = self.options.max_tasks
        if (
            not self.options.claims
            or self._is_quiet
            or self.stop_requested.is_set()
            or self.completer.unsaved > 4 * self.options.slots
        ):
            return []
        return self.attempts.slots.room(None if limit is None else limit - self.attempts.started)

    def _tokens(self) -> set[UUID]:
        return self.completer.tokens | self.attempts.tokens

    def _start(self, claimed: Claimed) -> None:
        self.attempts.start(claimed)
        if self._receivers is not None:
            self._receivers.hear(claimed.queue)

    async def execute(self, claimed: Claimed) -> None:
        """Run a claimed task and hand what it came to to the completer."""
        await self.attempts.execute(claimed)

    async def run_named(self, ids: list[UUID]) -> None:
        """Claim tasks by their ids, one at a time, and run each: for a stock runworker."""
        for id in ids:
            worker = self.membership.worker
            if worker is None:
                return
            want = Want(self.attempts.slots.names, 1)
            for claimed in await self._lanes["claim"].run(claim_named, worker, [id], want):
                await asyncio.wait([self.attempts.start(claimed)])

    def _check(self) -> None:
        """Something ended or was written: go on claiming, draining, or come to an end."""
        self._changed.set()
        self.claimer.slot_freed()
        if self.stop_requested.is_set():
            return
        options = self.options
        if options.max_tasks is not None and self.attempts.started >= options.max_tasks:
            self._retire(f"{self.attempts.started} tasks were started, which is --max-tasks")
        elif options.max_memory is not None and _peak_mib() > options.max_memory:
            self._retire(f"memory is above --max-memory, {options.max_memory:g} MiB")
        elif self.attempts.leaked >= conf.current().max_leaks:
            self._retire(f"{self.attempts.leaked} slots are leaked, which is CQ['MAX_LEAKS']")

    def _retire(self, reason: str) -> None:
        logger.warning("This worker drains: %s.", reason)
        self.stop()

    async def _flush_for_ever(self) -> None:
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted.clear()
            with suppress(Error):  # the lines are kept for the next turn
                await self._lanes["complete"].run(self.recorder.flush)
            await asyncio.sleep(conf.current().log_flush)
            if self.recorder.is_dirty:
                self._flush_wanted.set()

    def _on_control(self, message: Any) -> None:
        publisher.audience(message)
        if kind_of(message) == AUDIENCE:
            self.attempts.children.announce(roots_of(message))
        elif kind_of(message) == voided.VOID:
            self.membership.look_at_tokens()

    def _readiness(self) -> tuple[bool, str]:
        if not self.ready.is_set():
            return False, "starting"
        if self._is_quiet:
            return False, "quiet"
        if self.claimer.failures:
            return False, "the database does not answer"
        return True, "claiming"

    def _from_any_thread(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(call)

    @property
    def sessions(self) -> int:
        """How many database sessions this process opens at most."""
        return self.options.threads + self.options.lanes + len(self._lanes) + 1


def _peak_mib() -> float:
    return (peak_bytes() or 0) / 2**20

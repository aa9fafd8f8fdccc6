"""
The runner: one worker process, assembled from its services, started and drained in order.

Receivers ring, the claimer claims, the consumer executes, the completer writes. The
heartbeat begins before the first claim and ends after the last completion, so that a
worker never looks dead while it still holds something.
"""

import asyncio
import faulthandler
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

from channels.layers import BaseChannelLayer
from django.db import connections

from cq import conf
from cq.aio import Lane
from cq.definition import registry
from cq.definition.outcome import Released
from cq.definition.signature import TaskFunctionLike
from cq.execution.executor import RELEASED, VOID, Attempt, Executor
from cq.models import Worker, workers
from cq.models.queries import database
from cq.models.sql import dialect
from cq.models.transitions import Claimed, Want
from cq.progress import publisher
from cq.transport import dispatcher
from cq.transport.own_layer import crosses_processes, is_configured, make_layer
from cq.worker.claimer import MAX_CLAIM, Claimer
from cq.worker.completer import Completer
from cq.worker.consumer import EXECUTE, TaskConsumer
from cq.worker.control import Control
from cq.worker.health import HealthProbe
from cq.worker.heartbeat import Heartbeat
from cq.worker.options import WorkerOptions
from cq.worker.process_identity import this_process
from cq.worker.process_pool import ChildPool
from cq.worker.receiver import Receiver
from cq.worker.rescuer import Rescuer
from cq.worker.scheduler import Scheduler
from cq.worker.sqlite_watch import SqliteWatch
from cq.worker.watchdog import Watchdog
from cq.workflow import voided
from cq.workflow.claim import claim_one
from cq.workflow.completion import Completion
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

_FORCED_SECONDS = 1.0


class Runner:
    """One worker process. `run()` returns when it has been stopped and drained."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.worker = UUID(int=0)
        self._loop = asyncio.get_running_loop()
        self._lanes = {name: Lane(f"cq-{name}") for name in ("claim", "complete", "engine")}
        self._flush_wanted = asyncio.Event()
        self.recorder = Recorder(
            conf.current().max_lines,
            lambda: self._from_any_thread(self._flush_wanted.set),
        )
        self.children = ChildPool(options.processes)
        self.executor = Executor(options.threads, options.lanes, self.recorder, self.children)
        self.completer = Completer(self._lanes["complete"], self.recorder, self._saved)
        self.probe = HealthProbe(self._is_ready)
        self.claimer = Claimer(
            self._lanes["claim"],
            self._room,
            self._start,
            queues=options.queues,
            tick=self.probe.tick,
        )
        self.consumer = TaskConsumer(self)
        self.watchdog = Watchdog(
            self._loop,
            stall=conf.current().loop_stall,
            running=lambda: [a.function.name for a in self.executor.running.values()],
        )
        self.heartbeat: Heartbeat | None = None
        self.stop_requested = asyncio.Event()
        self.ready = asyncio.Event()
        self._force = asyncio.Event()
        self._ended = asyncio.Event()
        self._busy = {"async": 0, "thread": 0, "process": 0}
        self._names = _names_by_pool()
        self._tasks: asyncio.TaskGroup | None = None
        self._receivers: list[Receiver] = []
        self._started = 0
        self.was_forced = False

    # --- life -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain: claim no more, end what runs within the grace, then return from `run`."""
        if self.stop_requested.is_set():
            self.force()
        self.stop_requested.set()

    def force(self) -> None:
        """Drain, and hand back what runs now instead of waiting for it."""
        self.was_forced = True
        self.stop_requested.set()
        self._force.set()
        self._ended.set()

    async def run(self) -> None:
        """Be a worker until stopped; returns when everything is written or handed back."""
        await self._lanes["engine"].run(self._enlist)
        self._begin_heartbeat()
        voided.listen(self._look_at_tokens)
        dispatcher.attach_loop(self._loop, self.claimer.ring, self.options.queues)
        self.watchdog.start()
        try:
            async with asyncio.TaskGroup() as services:
                await self._serve(services)
        finally:
            self.watchdog.stop()
            dispatcher.detach_loop()
            voided.unlisten(self._look_at_tokens)
            if self.heartbeat is not None:
                await asyncio.to_thread(self.heartbeat.stop)
            await self._retire()
            self._close()

    async def _serve(self, services: asyncio.TaskGroup) -> None:
        background = [
            services.create_task(service, name=name) for name, service in self._services().items()
        ]
        completer = services.create_task(self.completer.run(), name="completer")
        flusher = services.create_task(self._flush_for_ever(), name="recorder")
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                claimer = tasks.create_task(self.claimer.run(), name="claimer")
                self.ready.set()
                self.claimer.ring()
                await self._until_stopped()
                self.probe.drain()
                assert self.heartbeat is not None
                self.heartbeat.state = "draining"
                for receiver in self._receivers:
                    receiver.stop()
                self.claimer.stop()
                await claimer
                await self._drain()
        finally:
            await self.completer.drain()
            self.completer.close()
            await completer
            for task in (flusher, *background):
                task.cancel()
            await self._lanes["complete"].run(self.recorder.flush)

    def _services(self) -> dict[str, Any]:
        lane = self._lanes["engine"]
        services: dict[str, Any] = {
            "rescuer": Rescuer(lane, lambda: self.worker).run(),
        }
        if self.options.scheduler and not self.options.burst:
            services["scheduler"] = Scheduler(lane.run).run()
        if connections[database()].vendor == "sqlite" and self.options.claims:
            watch = SqliteWatch(self._lanes["claim"], self.claimer.ring)
            services["sqlite watch"] = watch.run()
        settings = conf.current()
        layer = self._task_layer(settings.channel_layer)
        if layer is not None and self.options.claims:
            for queue in self._queues():
                receiver = Receiver(layer, queue, self.claimer.ring)
                self._receivers.append(receiver)
                services[f"receiver {queue}"] = receiver.run()
        if crosses_processes(settings.browser_layer):
            services["control"] = Control(settings.browser_layer or "", self._on_control).run()
        return services

    def _task_layer(self, alias: str | None) -> BaseChannelLayer | None:
        if alias is None or not is_configured(alias) or not crosses_processes(alias):
            return None
        return make_layer(alias)

    def _queues(self) -> list[str]:
        if self.options.queues is not None:
            return list(self.options.queues)
        found = {function.options.queue for function in registry.functions()}
        return sorted(found | {"default"})

    async def _until_stopped(self) -> None:
        if not self.options.burst:
            await self.stop_requested.wait()
            return
        while not self.stop_requested.is_set():
            await self.claimer.is_idle.wait()
            if not self.executor.running and not self.completer.unsaved:
                return
            self.claimer.is_idle.clear()
            await self._something_saved()

    async def _something_saved(self) -> None:
        await self.completer.drain()
        await asyncio.sleep(0.01)
        self.claimer.ring()

    async def _drain(self) -> None:
        """Wait for running attempts up to the grace, then hand back what still runs."""
        try:
            async with asyncio.timeout(self.options.grace):
                while self.executor.running and not self._force.is_set():
                    await self._one_ended()
        except TimeoutError:
            pass
        for attempt in list(self.executor.running.values()):
            self._hand_back(attempt)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FORCED_SECONDS):
                while any(not attempt.is_leaked for attempt in self.executor.running.values()):
                    await self._one_ended()

    async def _one_ended(self) -> None:
        self._ended.clear()
        await self._ended.wait()

    def _hand_back(self, attempt: Attempt) -> None:
        if attempt.is_leaked:
            return
        if attempt.function.is_async or attempt.task is None:
            attempt.stop(RELEASED)
            return
        # A thread cannot be stopped: its token is used up by the release, so that nothing
        # it still does counts, and the process does not wait for it.
        attempt.stop_reason = RELEASED
        attempt.task.cancel()
        self._complete(attempt, Released("The worker stopped before the task ended."))

    def quiet(self) -> None:
        """Keep what runs and claim nothing, until stopped."""
        logger.info("Quiet: nothing is claimed any more; %d run on.", len(self.executor.running))
        self.claimer.stop()

    def dump_stacks(self) -> None:
        """Log the stacks of all threads and of the running async tasks."""
        faulthandler.dump_traceback(all_threads=True)
        for attempt in self.executor.running.values():
            logger.warning("Running: %s %s", attempt.function.name, attempt.claimed.id)
            if attempt.task is not None and attempt.function.is_async:
                attempt.task.print_stack()

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a body still runs in a thread although the worker has ended."""
        return any(not attempt.function.is_async for attempt in self.executor.running.values())

    # --- claiming and executing ------------------------------------------------------------

    def _room(self) -> list[Want]:
        if (
            not self.options.claims
            or self.completer.unsaved > 4 * self.options.slots
            or not self._may_start()
        ):
            return []
        free = {
            "async": self.options.slots - self._busy["async"],
            "thread": self.options.threads - self._busy["thread"] - self.executor.leaked,
            "process": self.options.processes - self._busy["process"],
        }
        return [
            Want(self._names[pool], min(count, MAX_CLAIM))
            for pool, count in free.items()
            if count > 0 and self._names[pool]
        ]

    def _may_start(self) -> bool:
        limit = self.options.max_tasks
        return not self.stop_requested.is_set() and (limit is None or self._started < limit)

    def _start(self, claimed: Claimed) -> None:
        assert self._tasks is not None
        self._started += 1
        self._busy[self._pool(claimed)] += 1
        self._tasks.create_task(
            self.consumer.dispatch({"type": EXECUTE, "claimed": claimed}), name=claimed.func_name
        )
        if self.options.max_tasks is not None and self._started >= self.options.max_tasks:
            logger.info("Started %d tasks, which is --max-tasks: draining.", self._started)
            self.stop_requested.set()

    def _pool(self, claimed: Claimed) -> str:
        function = registry.find(claimed.func_name)
        return _pool_of(function) if function is not None else "async"

    async def execute(self, claimed: Claimed) -> None:
        """Run a claimed task and hand what it came to to the completer."""
        pool = self._pool(claimed)
        function = registry.lookup(claimed.func_name)
        attempt = Attempt(claimed, function, self.recorder.open(claimed))
        try:
            outcome = await self.executor.run(attempt)
        except asyncio.CancelledError:
            outcome = None
            if attempt.stop_reason is None:
                raise
        finally:
            self._busy[pool] -= 1
            self._ended.set()
        if outcome is not None:
            self._complete(attempt, outcome)
        elif attempt.stop_reason is None:
            self._saved(1)
        self.claimer.slot_freed()

    def _complete(self, attempt: Attempt, outcome: Any) -> None:
        options = attempt.function.options
        item = Completion(
            claimed=attempt.claimed,
            outcome=outcome,
            stores_result=options.store_result,
            at_most_once=options.at_most_once,
        )
        self.completer.put(item, attempt.buffer)

    async def run_named(self, ids: list[Any]) -> None:
        """Claim tasks by their ids, one at a time, and run each: for a stock runworker."""
        names = sorted(name for pool in self._names.values() for name in pool)
        for id in ids:
            claimed = await self._lanes["claim"].run(claim_one, self.worker, id, names)
            if claimed is not None:
                self._busy[self._pool(claimed)] += 1
                await self.consumer.dispatch({"type": EXECUTE, "claimed": claimed})

    def _saved(self, count: int) -> None:
        self._from_any_thread(self._after_save)

    def _after_save(self) -> None:
        self.claimer.slot_freed()
        limit = self.options.max_memory
        if limit is not None and _resident_mib() > limit and not self.stop_requested.is_set():
            logger.info("Memory is above --max-memory %g MiB: draining.", limit)
            self.stop_requested.set()
        if self.executor.leaked >= conf.current().max_leaks:
            logger.error("%d threads are leaked: draining.", self.executor.leaked)
            self.stop_requested.set()

    # --- the record, the heartbeat, the row -------------------------------------------------

    async def _flush_for_ever(self) -> None:
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted.clear()
            await self._lanes["complete"].run(self.recorder.flush)
            await asyncio.sleep(conf.current().log_flush)
            if self.recorder.is_dirty:
                self._flush_wanted.set()

    def _begin_heartbeat(self) -> None:
        self.heartbeat = Heartbeat(
            self.worker,
            held=self._held,
            void=lambda tokens: self._from_any_thread(partial(self._void, tokens)),
            declared_dead=lambda: self._from_any_thread(self._reborn),
            stalled_for=self.watchdog.stalled_for,
        )
        self.heartbeat.start()

    def _held(self) -> list[tuple[UUID, UUID]]:
        return [
            (attempt.claimed.id, attempt.claimed.token)
            for attempt in list(self.executor.running.values())
        ]

    def _void(self, tokens: list[UUID]) -> None:
        for token in tokens:
            attempt = self.executor.running.get(token)
            if attempt is not None and attempt.stop_reason is None:
                attempt.stop(VOID)

    def _reborn(self) -> None:
        """Go on under a new row: others declared the old one dead and took its tasks."""
        if self.heartbeat is None or self.stop_requested.is_set():
            return
        logger.warning("Worker %s was declared dead by others; it goes on anew.", self.worker)
        self._void(list(self.executor.running))
        self.worker = UUID(int=0)
        self.claimer.worker = None
        assert self._tasks is not None
        self._tasks.create_task(self._enlist_again(), name="enlist")

    async def _enlist_again(self) -> None:
        await self._lanes["engine"].run(self._enlist)
        assert self.heartbeat is not None
        self.heartbeat.worker = self.worker
        self.claimer.ring()

    def _enlist(self) -> None:
        row = Worker(
            queues=None if self.options.queues is None else list(self.options.queues),
            names=sorted(name for names in self._names.values() for name in names),
            slots=self.options.slots,
            **asdict(this_process()),
        )
        workers.enlist(row)
        self.worker = row.id
        self.claimer.worker = row.id

    async def _retire(self) -> None:
        with suppress(Exception):
            await self._lanes["engine"].run(lambda: workers.retire(dialect(), self.worker))

    def _on_control(self, message: Any) -> None:
        publisher.audience(message)
        if isinstance(message, dict) and message.get("kind") == voided.VOID:
            self._look_at_tokens()

    def _look_at_tokens(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.beat_now()

    def _is_ready(self) -> tuple[bool, str]:
        if not self.ready.is_set():
            return False, "starting"
        return True, "claiming"

    def _from_any_thread(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(call)

    def _close(self) -> None:
        self.executor.close()
        self.children.close()
        for lane in self._lanes.values():
            lane.close()

    @property
    def sessions(self) -> int:
        """How many database sessions this process opens at most."""
        return self.options.threads + self.options.lanes + len(self._lanes) + 1


def _pool_of(function: TaskFunctionLike) -> str:
    if function.options.pool == "process":
        return "process"
    return "async" if function.is_async else "thread"


def _names_by_pool() -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {"async": set(), "thread": set(), "process": set()}
    for function in registry.functions():
        names[_pool_of(function)] |= registry.aliases(function)
    return {pool: tuple(sorted(found)) for pool, found in names.items()}


def _resident_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)

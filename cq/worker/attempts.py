"""
The attempts of this process: claimed tasks go in, what they came to goes to the completer.

Each runs through `TaskConsumer.dispatch` as an asyncio task of its own. They are held
here and not by a TaskGroup, because a group waits for all of its tasks: a body that
cannot be ended must not hold up the end of the worker.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from uuid import UUID

from cq.definition import registry
from cq.definition.outcome import Outcome
from cq.definition.status import Status
from cq.execution.attempt import Attempt, Stopper, StopReason
from cq.execution.executor import Executor
from cq.models.transitions import Claimed
from cq.progress import publisher
from cq.progress.buffer import AttemptBuffer
from cq.worker.consumer import EXECUTE, Host, TaskConsumer
from cq.worker.options import WorkerOptions
from cq.worker.process_pool import ChildPool
from cq.worker.slots import Slots
from cq.workflow.completion import Completion
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

Put = Callable[[Completion, AttemptBuffer], object]


class Attempts:
    """Starts, stops and counts the attempts of one worker; used on its loop alone."""

    def __init__(
        self,
        options: WorkerOptions,
        host: Host,
        recorder: Recorder,
        *,
        put: Put,
        discard: Callable[[AttemptBuffer], object],
        changed: Callable[[], object],
    ) -> None:
        self._recorder = recorder
        self._put = put
        self._discard = discard
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopper = Stopper(self._complete, changed)
        self.children = ChildPool(options.processes)
        self.executor = Executor(
            options.threads, options.lanes, recorder, self.children, self._stopper
        )
        self.slots = Slots(
            slots=options.slots, threads=options.threads, processes=options.processes
        )
        self.consumer = TaskConsumer(host)
        self.started = 0
        self._starting: set[UUID] = set()
        self._hands_back = False

    def start(self, claimed: Claimed) -> "asyncio.Task[None]":
        """Run a task that was just claimed, beside the others and in a context of its own."""
        self._admit(claimed)
        task = asyncio.get_running_loop().create_task(
            self.consumer.dispatch({"type": EXECUTE, "claimed": claimed}),
            context=contextvars.Context(),
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _admit(self, claimed: Claimed) -> None:
        # A slot is taken, and watchers see that the task runs.
        self.slots.take(claimed)
        self.started += 1
        self._starting.add(claimed.token)
        root = claimed.root.hex
        if publisher.watched(root):
            running = publisher.node(
                claimed.id, status=Status.RUNNING, attempt=claimed.attempt, name=claimed.func_name
            )
            publisher.states(root, [running])

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("An attempt failed outside of its body.", exc_info=problem)

    async def execute(self, claimed: Claimed) -> None:
        """Run a claimed task to its end and hand over what it came to."""
        self._starting.discard(claimed.token)
        function = registry.lookup(claimed.func_name)
        attempt = self.executor.attempt(claimed, function, self._recorder.open(claimed))
        try:
            outcome = await self._outcome(attempt)
            if outcome is not None:
                self._complete(attempt, outcome)
            elif attempt.stop_reason is StopReason.VOID:
                self._discard(attempt.buffer)
        finally:
            self.slots.free(claimed)
            self._changed()

    async def _outcome(self, attempt: Attempt) -> Outcome | None:
        if self._hands_back:
            return attempt.handed_back("The worker stopped before the task started.")
        return await self.executor.run(attempt)

    def _complete(self, attempt: Attempt, outcome: Outcome) -> None:
        options = attempt.function.options
        item = Completion(
            claimed=attempt.claimed,
            outcome=outcome,
            stores_result=options.store_result,
            at_most_once=options.at_most_once,
        )
        self._put(item, attempt.buffer)

    # --- stopping ---------------------------------------------------------------------------

    def void(self, tokens: "list[UUID] | None" = None) -> None:
        """Stop what holds these tokens, or everything: others have taken the tasks."""
        running = self.executor.running
        for token in list(running) if tokens is None else tokens:
            if (attempt := running.get(token)) is not None:
                self._stopper.stop(attempt, StopReason.VOID)

    def hand_back(self) -> None:
        """Give all tasks back uncharged, also what a claim in flight still brings."""
        self._hands_back = True
        for attempt in list(self.executor.running.values()):
            self._stopper.stop(attempt, StopReason.RELEASED)

    def give_up(self) -> None:
        """Wait no longer for what was stopped: hand over what it comes to as it is."""
        for attempt in list(self.executor.running.values()):
            self._stopper.abandon(attempt)

    @property
    def awaited(self) -> int:
        """How many attempts have not handed over what they came to."""
        running = self.executor.running.values()
        return len(self._starting) + sum(not attempt.is_abandoned for attempt in running)

    @property
    def tokens(self) -> set[UUID]:
        """The claims that have not been handed over."""
        return self._starting | set(self.executor.running)

    @property
    def leaked(self) -> int:
        """How many bodies run on although they were stopped."""
        return self._stopper.leaked

    def held(self) -> list[tuple[UUID, UUID]]:
        """Ids and tokens of what runs here; safe to call from the heartbeat's thread."""
        return [
            (attempt.claimed.id, attempt.claimed.token)
            for attempt in list(self.executor.running.values())
            if attempt.stop_reason is None
        ]

    def running_names(self) -> list[str]:
        """The names of what runs here, for a report."""
        return [attempt.claimed.func_name for attempt in self.executor.running.values()]

    async def close(self) -> None:
        """End the children and the idle threads."""
        self.executor.close()
        await self.children.close()

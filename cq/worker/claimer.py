"""
The claimer: one per process, the only one who takes tasks.

It looks at the table when a bell rang, when a slot frees after a full claim, when the
next future row becomes due, and every CQ["POLL"] seconds in any case. It takes exactly
as many tasks as there are free slots, of the kinds that fit them, and never holds one
that it cannot start at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from django.db import Error

from cq import conf
from cq.aio import Lane
from cq.failpoints import reached
from cq.models.transitions import Claimed, Want
from cq.transport import dispatcher
from cq.transport.messages import Message, ids_of
from cq.worker.dry_pools import DryPools
from cq.worker.lost_claims import lost_claims
from cq.workflow.claim import claim, claim_named, seconds_to_next

logger = logging.getLogger("cq.worker")

_LONGEST_PAUSE = 2.0
_PASS_SECONDS = 0.02
"""A worker that works off a backlog wakes the others no more often than this."""


class Claimer:
    """
    Claims for one process; `room` says what fits now, `start` takes what was claimed.

    `worker` names the row to claim for, or None while there is none; `held` are the claim
    tokens this process knows of; `idle` is called when a look has found nothing more.
    """

    def __init__(
        self,
        lane: Lane,
        room: Callable[[], list[Want]],
        start: Callable[[Claimed], object],
        *,
        worker: Callable[[], UUID | None],
        held: Callable[[], Collection[UUID]],
        queues: Sequence[str] | None,
        tick: Callable[[], object],
        idle: Callable[[], object],
    ) -> None:
        self._lane = lane
        self._room = room
        self._start = start
        self._worker = worker
        self._held = held
        self._queues = queues
        self._tick = tick
        self._idle = idle
        self._wake = asyncio.Event()
        self._stopping = False
        self._next_due: float | None = None
        self._hungry: set[tuple[str, ...]] = set()
        self._dry = DryPools()
        self._passing: asyncio.TimerHandle | None = None
        self._to_pass: Claimed | None = None
        self._turned_away = False
        self._in_doubt = False
        self.failures = 0
        """Looks in a row that the database did not answer."""
        self.is_idle = False
        """Whether the last look found nothing more to take."""
        self.claims = 0

    def ring(self, message: Message | None = None) -> None:
        """Look at the table soon; called on the loop, by a bell or for another reason."""
        if message is not None and self._dry:
            self._dry.hear(ids_of(message))
        self.is_idle = False
        self._wake.set()

    def slot_freed(self) -> None:
        """Look again if the last claim left something."""
        if self.has_more:
            self._wake.set()

    @property
    def has_more(self) -> bool:
        """Whether a claim came back full, or there was no room for one: more may be waiting."""
        return self._turned_away or bool(self._hungry)

    def stop(self) -> None:
        """Claim no more; a claim in flight is still handed over."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Claim until stopped; an outage of the database only makes it late."""
        while not self._stopping:
            self._tick()
            try:
                await self._look()
                self.failures = 0
            except Error as problem:
                if not self.failures:
                    logger.warning("Claims wait for the database: %s", problem)
                self._failed()
            except Exception:  # one bad claim must not end the worker
                logger.exception("A claim failed; it is tried again.")
                self._failed()
            await self._pause()

    def _failed(self) -> None:
        # The claim may have been committed all the same, and only its answer was lost.
        self._in_doubt = True
        self.failures += 1
        back_off = min(_LONGEST_PAUSE, 0.05 * 2 ** min(self.failures, 10))
        self._next_due = back_off * random.uniform(0.5, 1)

    async def _pause(self) -> None:
        if self._stopping:
            return
        poll = conf.current().poll * random.uniform(0.8, 1.2)
        if self._next_due is not None:
            poll = min(poll, max(self._next_due, 0.001))
        try:
            async with asyncio.timeout(poll):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        # Tasks that are ready to end do so first: what they free goes into one claim.
        await asyncio.sleep(0)
        self._wake.clear()
        while not self._stopping:
            worker, wants = self._worker(), self._room()
            self._turned_away = worker is None or not wants
            if worker is None or not wants:
                self._next_due = None
                return
            if self._in_doubt:
                await self._find_lost(worker)
                continue
            if not await self._take(worker, wants):
                break
            await asyncio.sleep(0)
        self._next_due = await self._lane.run(seconds_to_next, self._queues)
        if self._dry:
            rest = self._dry.seconds_left(time.monotonic()) or 0.0
            self._next_due = rest if self._next_due is None else min(rest, self._next_due)
        elif not self._wake.is_set():
            self.is_idle = True
            self._idle()

    async def _take(self, worker: UUID, wants: Sequence[Want]) -> bool:
        """Claim and start what fits; whether another look may bring more."""
        asked, resting = self._dry.split(wants, time.monotonic())
        may_be_more = bool(asked) and await self._look_for(worker, asked)
        ids = self._dry.take_ids(resting) if resting else []
        for want in resting if ids else ():
            for task in await self._lane.run(claim_named, worker, ids, want, self._queues):
                self._start(task)
        return may_be_more

    async def _look_for(self, worker: UUID, wants: Sequence[Want]) -> bool:
        reached("before_claim")
        began = time.monotonic()
        claimed = await self._lane.run(claim, worker, wants, self._queues)
        now = time.monotonic()
        reached("after_claim", claimed)
        self.claims += 1
        for task in claimed:
            self._start(task)
        short = self._note_hunger(claimed, wants)
        are_woken = self._dry.note(
            short, now - began, len(claimed), now, is_crowded=bool(self._hungry)
        )
        if len(short) == len(wants):
            return are_woken
        self._pass_on(claimed[-1])
        return True

    def _pass_on(self, last: Claimed) -> None:
        """Wake the next idle worker, wherever it is, for what this one has no room for."""
        if self._passing is None:
            self._passing = asyncio.get_running_loop().call_later(_PASS_SECONDS, self._passed)
            dispatcher.ring(last.queue, [last.id.hex])
        else:
            self._to_pass = last

    def _passed(self) -> None:
        self._passing, last, self._to_pass = None, self._to_pass, None
        if last is not None and not self._stopping:
            self._pass_on(last)

    async def _find_lost(self, worker: UUID) -> None:
        found = await self._lane.run(lost_claims, worker, self._held())
        self._in_doubt = False
        for task in found:
            logger.warning("Found the lost claim of %s (task %s).", task.func_name, task.id)
            self._start(task)

    def _note_hunger(self, claimed: Sequence[Claimed], wants: Sequence[Want]) -> list[Want]:
        """Which wants came back short; the others, and pools without room now, may find more."""
        short = []
        for want in wants:
            names = frozenset(want.names)
            if sum(1 for task in claimed if task.func_name in names) >= want.limit:
                self._hungry.add(want.names)
            else:
                self._hungry.discard(want.names)
                short.append(want)
        return short

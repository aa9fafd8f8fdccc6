"""The claimer over a real table: what several pools of one worker cost each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from cq.aio import Lane
from cq.models.sessions import own_sessions
from cq.models.transitions import Claimed, Want
from cq.transport.messages import run_message
from cq.worker.claimer import Claimer
from cq.worker.dry_pools import DryPools
from tests.conformance.driving import Hand, R, status
from tests.conformance.test_claim_is_flat import fill, unanalyzed
from tests.sampleapp.tasks import echo, noop

__all__ = ["unanalyzed"]

FRONT, BEHIND = Want((noop.name,), 20), Want((echo.name,), 5)
LOOKS = 40


def claimer(hand: Hand, lane: Lane, started: Callable[[Claimed], Any], *wants: Want) -> Claimer:
    """One with always the same room."""
    return Claimer(
        lane,
        lambda: list(wants),
        started,
        worker=lambda: hand.row.pk,
        held=set,
        queues=None,
        tick=lambda: None,
        idle=lambda: None,
    )


def seconds_for(hand: Hand, *wants: Want) -> float:
    """How long so many full claims take beside each other pool's wants."""
    taken: list[Claimed] = []
    lane = Lane("cq-test", own_sessions)

    async def claim_enough() -> None:
        enough = asyncio.Event()

        def started(claimed: Claimed) -> None:
            taken.append(claimed)
            if len(taken) >= LOOKS * FRONT.limit:
                enough.set()

        claims = claimer(hand, lane, started, *wants)
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            running = group.create_task(claims.run())
            await enough.wait()
            claims.stop()
            await running

    began = time.monotonic()
    asyncio.run(claim_enough())
    lane.close()
    return time.monotonic() - began


@pytest.mark.long
@pytest.mark.usefixtures("unanalyzed")
def test_a_pool_without_tasks_costs_little_beside_the_backlog_of_another(database: object) -> None:
    if connection.vendor == "postgresql":
        fill(60_000)
    else:
        noop.delay_many([((), {})] * 10_000)
    hand = Hand()
    alone = seconds_for(hand, FRONT)
    assert seconds_for(hand, FRONT, BEHIND) < 4 * alone


def test_a_bell_starts_a_task_of_a_pool_that_rests(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not rested yet, and nobody looks through the backlog of the others for it."""
    noop.delay_many([((), {})] * 20)
    taken: list[Claimed] = []
    lane = Lane("cq-test", own_sessions)

    async def ring() -> None:
        looked, came = asyncio.Event(), asyncio.Event()
        note = DryPools.note

        def slow(self: DryPools, short: Any, seconds: float, *rest: Any, **_: Any) -> bool:
            looked.set()
            return note(self, short, 1000.0, *rest, is_crowded=True)

        monkeypatch.setattr(DryPools, "note", slow)
        claims = claimer(hand, lane, lambda task: (taken.append(task), came.set()), BEHIND)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(claims.run())
            await looked.wait()
            task = await echo.adelay(1)
            claims.ring(run_message([task.id.hex]))
            await came.wait()
            claims.stop()
            await running
        assert claims.claims == 1, "the table was looked through again"

    asyncio.run(ring())
    lane.close()
    assert [(row.func_name, status(row.id)) for row in taken] == [(echo.name, R)]
    hand.held = {row.id: row for row in taken}
    hand.run_all()

"""Repeating tasks across an outage: a session that died does not stop the scheduler for ever."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from cq.aio import Lane
from cq.models import RepeatingTask, Task
from cq.worker.scheduler import Scheduler
from tests.sampleapp.tasks import noop
from tests.services import Server
from tests.settings import DATABASE_KIND, DATABASE_URL


@pytest.mark.skipif(
    DATABASE_KIND != "postgres" or bool(DATABASE_URL),
    reason="restarts the private PostgreSQL of the run; there is none",
)
def test_the_scheduler_fires_again_after_the_database_was_restarted(
    database: Any, postgres_server: Server
) -> None:
    entry = RepeatingTask.objects.create(func_name=noop.name, crontab="0 0 1 1 *")
    past = timezone.now() - timedelta(minutes=1)
    RepeatingTask.objects.filter(pk=entry.pk).update(next_run=past, enabled=False)
    lane = Lane("test-engine")
    scheduler = Scheduler(lane.run)

    async def outage() -> None:
        await scheduler.look()
        postgres_server.halt()
        assert 0 < await scheduler.look() <= 2
        postgres_server.resume()
        await lane.run(RepeatingTask.objects.filter(pk=entry.pk).update, enabled=True)
        await scheduler.look()

    connections.close_all()
    asyncio.run(outage())
    lane.close()
    assert scheduler.fired == Task.objects.count() == 1

"""
The connection dies in the commit of a body's writes: before it has arrived, or after.

The worker cannot know which of the two it was. Either way the effects of the body are there
exactly once if the task is a Success, and not at all otherwise (PostgreSQL).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_save

from cq.definition import registry
from cq.definition.status import Status
from cq.execution.attempt import Stopper
from cq.execution.executor import Executor
from cq.execution.here import run_here
from cq.models import Worker
from cq.models.transitions import Claimed, Want
from cq.workflow.claim import claim
from cq.workflow.completion import Completion, complete
from cq.workflow.recording import Recorder
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import commit_effect, write_effect


def closing(work: Callable[[], object]) -> None:
    """Do some work on a thread of its own, and close its connection."""
    try:
        work()
    finally:
        connections.close_all()


def kill(session: int) -> None:
    """End a session of the server."""

    def terminate() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [session])

    with ThreadPoolExecutor(1) as pool:
        pool.submit(closing, terminate).result(10)


@pytest.fixture(params=["before it arrived", "after it arrived"])
def lost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Break the first commit of an effect; the sessions that were lost."""
    real, lost, writers = BaseDatabaseWrapper.commit, list[int](), set[int]()

    def note(**_: Any) -> None:
        writers.add(threading.get_ident())

    def commit(self: Any) -> None:
        if lost or threading.get_ident() not in writers:
            real(self)
            return
        lost.append(self.connection.info.backend_pid)
        if request.param == "before it arrived":
            kill(lost[0])
            real(self)
            return
        real(self)
        kill(lost[0])
        self.errors_occurred = True  # as Django notes an error of the driver
        raise OperationalError("no answer") from psycopg.OperationalError("no answer")

    post_save.connect(note, sender=Effect)
    monkeypatch.setattr(BaseDatabaseWrapper, "commit", commit)
    yield lost
    post_save.disconnect(note, sender=Effect)


async def run_in_worker(claimed: Claimed) -> None:
    """Run a claimed task as a worker does, and write what is left to write."""
    recorder = Recorder(1000)
    stopper = Stopper(lambda *_: None, lambda: None)
    executor = Executor(1, 1, recorder, None, stopper)  # type: ignore[arg-type]
    attempt = executor.attempt(claimed, registry.lookup(claimed.func_name), recorder.open(claimed))
    outcome = await executor.run(attempt)
    if outcome is not None:
        item = Completion(claimed=claimed, outcome=outcome)
        await asyncio.to_thread(closing, lambda: complete([item]))
    await asyncio.wrap_future(executor.threads.submit(connections.close_all))
    executor.close()


async def run_here_instead(claimed: Claimed) -> None:
    """Run it as a process child and `drain()` do: on one thread and connection."""
    function = registry.lookup(claimed.func_name)
    await asyncio.to_thread(closing, lambda: run_here(claimed, function, Recorder(1000)))


@pytest.mark.parametrize("run", [run_in_worker, run_here_instead], ids=["worker", "here"])
@pytest.mark.parametrize("function", [write_effect, commit_effect], ids=lambda one: one.name)
def test_the_effect_is_there_exactly_if_the_task_is_a_success(
    database: Any, lost: list[int], function: Any, run: Callable[[Claimed], Any]
) -> None:
    task = function.delay()
    worker = Worker.objects.create(names=list(registry.names()))
    while claimed := claim(worker.id, [Want(registry.names(), 1)]):
        asyncio.run(run(claimed[0]))
    task.refresh_from_db()
    assert len(lost) == 1
    assert task.is_terminal
    assert Effect.objects.count() == (task.status == Status.SUCCESS)
    if function is write_effect:
        # Handed back, uncharged: it ends well whichever of the two it was.
        assert (task.status, task.errors) == (Status.SUCCESS, [])

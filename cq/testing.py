"""
The test kit: run tasks in a test through the real path, without a worker.

`drain()` claims, executes and completes every due task in the calling process, until
nothing is due: what a worker does, on the test's own thread and connection. It works
inside `TestCase` (commits become savepoints) and on the in-memory SQLite database, and
leaves no connection, thread or transaction behind. Plain `assert` does the rest.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from django.test.utils import override_settings
from django.utils import timezone

from cq import conf
from cq.definition import registry
from cq.definition.status import TERMINAL, Status
from cq.errors import WaitTimeout
from cq.execution.here import run_here
from cq.models import Task, Worker, workers
from cq.models.queries import database, rows_by_id
from cq.models.sql import dialect
from cq.models.transitions import Want
from cq.workflow.claim import claim
from cq.workflow.recording import Recorder
from cq.workflow.schedule import fire_due

__all__ = ["Drained", "drain", "inline", "wait_for"]

_MAX_TASKS = 10_000


class Drained(list[Task]):
    """The tasks that a drain ran, in order, each as it ended; one per attempt."""

    def named(self, name: str) -> list[Task]:
        """Those of one task function."""
        return [task for task in self if task.func_name == name]


def drain(*, now: datetime | timedelta | None = None, queues: list[str] | None = None) -> Drained:
    """
    Run every due task to its end, and what they lead to, until nothing is due.

    `now` is the moment up to which delayed tasks, retries and repeating entries count as
    due: a time, or a span from now. By default delayed ones stay where they are, and
    repeating entries are not fired. Raises RuntimeError after 10,000 tasks.
    """
    ran = Drained()
    recorder = Recorder(conf.current().max_lines)
    worker = Worker(names=list(registry.names()), hostname="cq.testing", state="drain")
    workers.enlist(worker)
    until = timezone.now() + now if isinstance(now, timedelta) else now
    try:
        while True:
            if until is not None:
                _bring_forward(until)
                fire_due(until)
            if not _run_due(worker.id, queues, recorder, ran):
                return ran
            if len(ran) > _MAX_TASKS:
                raise RuntimeError(
                    f"drain() ran {len(ran)} tasks and there is still more. A task that always "
                    "enqueues another never ends; run fewer, or give it an end."
                )
    finally:
        Worker.objects.using(database()).filter(id=worker.id).delete()


def _run_due(worker: UUID, queues: list[str] | None, recorder: Recorder, ran: Drained) -> bool:
    names = tuple(sorted({name for fn in registry.functions() for name in registry.aliases(fn)}))
    claimed = claim(worker, [Want(names, 1)], queues)
    for task in claimed:
        run_here(task, registry.lookup(task.func_name), recorder)
        recorder.flush()
        ran.append(rows_by_id([task.id])[task.id])
    return bool(claimed)


def _bring_forward(until: datetime) -> None:
    db = dialect()
    db.count(
        f"UPDATE cq_task SET run_at = {db.now} WHERE status IN ('Q', 'Y') "
        f"AND run_at > {db.now} AND run_at <= %(until)s",
        {"until": db.moment(until)},
    )


def wait_for(task: Task, status: Status | str | None = None, *, timeout: float = 10.0) -> Task:
    """
    Wait until a task has a status (any terminal one by default); return it, refreshed.

    For tests beside a real worker. Raises WaitTimeout with what the task is instead.
    """
    wanted = TERMINAL if status is None else frozenset({Status(status)})
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        task.refresh_from_db()
        if task.status in wanted:
            return task
        if time.monotonic() > deadline:
            names = " or ".join(sorted(one.label for one in wanted))
            raise WaitTimeout(
                f"Task {task.id} ({task.func_name}) is {Status(task.status).label} after "
                f"{timeout:g} s, not {names}. Its error is {task.error!r}.",
                task_id=task.id,
            )
        pause.wait(0.01)


@contextmanager
def inline() -> Iterator[None]:
    """Run every `delay()` in place while the block runs, as CQ["SERIAL"] does."""
    with override_settings(CQ={**conf.raw(), "SERIAL": True}):
        yield

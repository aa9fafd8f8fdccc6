"""
Doing things on other connections: at once, or in a transaction that is held open meanwhile.

Every thread that is started here closes its connection before it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction

from cq.models import Task


def closing(work: Callable[[], Any]) -> Any:
    """Do some work on this thread and close its connection."""
    try:
        return work()
    finally:
        connections.close_all()


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Start the works at one moment, each on a thread of its own; their answers or errors."""
    barrier = threading.Barrier(len(works))

    def one(work: Callable[[], Any]) -> Any:
        connection.ensure_connection()
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        done = [pool.submit(closing, lambda work=work: one(work)) for work in works]
        return [one.exception() or one.result() for one in done]


@contextmanager
def elsewhere(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a transaction of another connection, which stays open for the block."""
    ready, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                work()
                ready.set()
                over.wait(30)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        try:
            assert ready.wait(10)
            yield
        finally:
            over.set()
            held.result(10)


def lock(task: Task) -> Callable[[], object]:
    return lambda: list(Task.objects.select_for_update().filter(pk=task.pk))


def somebody_waits() -> bool:
    """Whether a connection to this database waits for a lock (PostgreSQL)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )
        return bool(cursor.fetchone()[0])

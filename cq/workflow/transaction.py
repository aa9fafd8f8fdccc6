"""
The transactions of the engine.

Short, at READ COMMITTED semantics whatever the project sets, with a lock time-out, and
repeated when the database asks for it (serialisation failure, deadlock, a lost
connection before anything was written). Nothing here holds session state.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)

from cq.models.sql import Dialect, database, dialect

T = TypeVar("T")
logger = logging.getLogger("cq.workflow")

_RETRYABLE_STATES = ("40001", "40P01", "55P03")
_LOST_STATES = ("57P01", "57P02", "57P03", "08000", "08003", "08006", "08001", "08004")
_ATTEMPTS = 6
_pause = threading.Event()


@contextmanager
def engine_transaction(lock_timeout_ms: int | None = None) -> Iterator[Dialect]:
    """
    A transaction on the task database; nested in the caller's own if there is one.

    `lock_timeout_ms` bounds every wait for a row lock inside (PostgreSQL).
    """
    with transaction.atomic(using=database()):
        db = dialect()
        if lock_timeout_ms is not None and db.is_postgres:
            db.count(f"SET LOCAL lock_timeout = {int(lock_timeout_ms)}")
        yield db


def is_conflict(error: BaseException) -> bool:
    """Whether the same statements may well succeed when they are run again."""
    if not isinstance(error, OperationalError | InternalError):
        return False
    state = getattr(error.__cause__, "sqlstate", None)
    return state in _RETRYABLE_STATES or "database is locked" in str(error)


def is_connection_loss(error: BaseException) -> bool:
    """Whether the database went away, rather than refused something."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    return state in _LOST_STATES or (
        state is None and cause is not None and type(cause).__module__.startswith("psycopg")
    )


def repeated(work: Callable[[], T], *, attempts: int = _ATTEMPTS) -> T:
    """
    Run a transaction again, with a jittered back-off, when the database asks for it.

    Inside somebody's open transaction nothing is repeated: its snapshot is theirs.
    """
    connection = connections[database()]
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except (OperationalError, InternalError) as error:
            if connection.in_atomic_block or attempt == attempts or not is_conflict(error):
                raise
            logger.debug("Transaction repeated after: %s", error)
            _pause.wait(random.uniform(0, 0.01 * 2**attempt))
    raise AssertionError("unreachable")

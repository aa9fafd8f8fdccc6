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
from typing import Any, TypeVar

from django.db import (
    IntegrityError,
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
_LOCK_TIMEOUT = "55P03"
_KEY_CONSTRAINT = "cq_task_unique_"
_LOST_STATES = ("57P01", "57P02", "57P03", "08000", "08003", "08006", "08001", "08004")
_ATTEMPTS = 6
_READ_COMMITTED = 2
_READS = ("SELECT", "EXPLAIN", "PRAGMA")
_pause = threading.Event()

writer_lock = threading.RLock()
"""Passed by every engine transaction of this process on SQLite, which has one writer."""


@contextmanager
def engine_transaction(lock_timeout_ms: int | None = None) -> Iterator[Dialect]:
    """
    A transaction on the task database; nested in the caller's own if there is one.

    `lock_timeout_ms` bounds every wait for a row lock inside (PostgreSQL). On SQLite it
    passes the writer's lock of the process, which is fair where the file's lock is not.
    """
    db = dialect()
    is_inner = db.connection.in_atomic_block
    if is_inner or db.is_postgres:
        with transaction.atomic(using=database()):
            if not is_inner:
                _at_read_committed(db)
            if lock_timeout_ms is not None and db.is_postgres:
                db.first(f"SET LOCAL lock_timeout = {int(lock_timeout_ms)}")
            yield db
        return
    with writer_lock, transaction.atomic(using=database()):
        yield db


@contextmanager
def body_transaction() -> Iterator[None]:
    """
    The transaction of an atomic body and its completion, at READ COMMITTED.

    On SQLite, which has one writer, it begins with the first write or savepoint instead
    of at entry: until then the body reads as it would at READ COMMITTED and holds up
    nobody. From then on it holds the process's writer lock until it ends.
    """
    connection = connections[database()]
    is_inner = connection.in_atomic_block
    if connection.vendor == "sqlite" and not is_inner:
        with _LateBegin(connection), transaction.atomic(using=database()):
            yield
        return
    with transaction.atomic(using=database()):
        if not is_inner:
            _at_read_committed(dialect())
        yield


def _at_read_committed(db: Dialect) -> None:
    level = getattr(db.connection, "isolation_level", None)
    if db.is_postgres and level not in (None, _READ_COMMITTED):
        db.count("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


class _LateBegin:
    """Holds back the BEGIN of the next transaction until a statement needs it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._wrapper: Any = None
        self._has_lock = False
        self._waits = False

    def __enter__(self) -> None:
        self._connection._start_transaction_under_autocommit = self._hold
        self._wrapper = self._connection.execute_wrapper(self._execute)
        self._wrapper.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._wrapper.__exit__(*exc)
        del self._connection._start_transaction_under_autocommit
        if self._has_lock:
            writer_lock.release()

    def _hold(self) -> None:
        self._waits = True

    def _execute(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self._waits and not sql.lstrip().upper().startswith(_READS):
            self._waits = False
            writer_lock.acquire()
            self._has_lock = True
            with self._connection.wrap_database_errors:
                self._connection.connection.execute("BEGIN IMMEDIATE")
        return execute(sql, params, many, context)


def is_conflict(error: BaseException) -> bool:
    """Whether the same statements may well succeed when they are run again."""
    if isinstance(error, IntegrityError):
        # Somebody took the unique key between the look at it and the write; now it is seen.
        return _KEY_CONSTRAINT in str(error)
    if not isinstance(error, OperationalError | InternalError):
        return False
    return _state(error) in _RETRYABLE_STATES or is_busy(error)


def is_lock_timeout(error: BaseException) -> bool:
    """Whether somebody held a row for longer than the transaction may wait (PostgreSQL)."""
    return isinstance(error, OperationalError) and _state(error) == _LOCK_TIMEOUT


def is_busy(error: BaseException) -> bool:
    """Whether somebody held the one write lock for too long (SQLite)."""
    return isinstance(error, OperationalError) and "database is locked" in str(error)


def _state(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def is_connection_loss(error: BaseException) -> bool:
    """Whether the database went away, rather than refused something."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    cause, state = error.__cause__, _state(error)
    return state in _LOST_STATES or (
        state is None and cause is not None and type(cause).__module__.startswith("psycopg")
    )


def open_session() -> object:
    """The database session of this thread, for `is_commit_in_doubt`; opened if it is not yet."""
    connection = connections[database()]
    connection.ensure_connection()
    return connection.connection


def is_commit_in_doubt(error: BaseException, session: object) -> bool:
    """
    Whether the session was lost, so that a commit on it may have arrived or not.

    Another database may be lost to a body as well; that is an error like any other. Django
    has connected anew by the time one sees the error, if it could.
    """
    connection = connections[database()]
    lost = connection.errors_occurred or connection.connection is not session
    return lost and is_connection_loss(error)


def repeated(
    work: Callable[[], T],
    *,
    attempts: int = _ATTEMPTS,
    unless: Callable[[BaseException], bool] = lambda error: False,
) -> T:
    """
    Run a transaction again, with a jittered back-off, when the database asks for it.

    Inside somebody's open transaction nothing is repeated: its snapshot is theirs. What
    `unless` says yes to is raised at once.
    """
    connection = connections[database()]
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except (OperationalError, InternalError, IntegrityError) as error:
            last = attempt == attempts or connection.in_atomic_block
            if last or not is_conflict(error) or unless(error):
                raise
            logger.debug("Transaction repeated after: %s", error)
            _pause.wait(random.uniform(0, 0.01 * 2**attempt))
    raise AssertionError("unreachable")

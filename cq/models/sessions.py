"""
The engine's own database sessions: one for each thread that serves a worker.

They stand beside the project's connection pool. On PostgreSQL their statements are
prepared with plans that hold for any parameters, and never compiled: a claim spends
twice as long on being planned as on being carried out, and compiling costs more than both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from cq.models.sql import Dialect, database

# A transaction of the engine lasts milliseconds. One whose process is frozen, or behind a wire
# that is cut without a word, must not hold its row locks against the others.
_IDLE_SECONDS = 15
_PLANS = {"plan_cache_mode": "force_generic_plan", "jit": "off", "enable_seqscan": "off"}


def own_sessions() -> None:
    """Let the calling thread open sessions of its own; call it before it opens the first."""
    for connection in connections.all():
        options = dict(connection.settings_dict.get("OPTIONS", {}))
        options.pop("pool", None)
        if connection.alias == database() and _may_prepare(connection):
            options.setdefault("prepare_threshold", 0)
            settled = _PLANS | {"idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s"}
            words = " ".join(f"-c {name}={value}" for name, value in settled.items())
            options["options"] = f"{options.get('options', '')} {words}".strip()
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}


@contextmanager
def prepared(db: Dialect) -> Iterator[None]:
    """Do the same on a session of somebody else, until the end of its transaction at most."""
    raw = db.connection.connection
    if not _may_prepare(db.connection):
        yield
        return
    for name, value in _PLANS.items():
        db.first(f"SET LOCAL {name} = {value}")
    threshold, raw.prepare_threshold = raw.prepare_threshold, 0
    try:
        yield
    finally:
        raw.prepare_threshold = threshold


def _may_prepare(connection: BaseDatabaseWrapper) -> bool:
    # The project's own word for a pooler that gives each transaction another session.
    shares_sessions = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    driver: Any = getattr(connection, "Database", None)
    is_psycopg3 = getattr(driver, "__name__", "") == "psycopg"
    return connection.vendor == "postgresql" and is_psycopg3 and not shares_sessions

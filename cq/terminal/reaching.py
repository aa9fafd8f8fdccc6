"""
Reaching the database of the tasks: whether it answers, has the tables, and takes writes.

Enters: an error of the database, or how long to wait for it. Leaves: an Obstacle, one
sentence with its exit code, or None when nothing is in the way.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

from django.db import Error, InterfaceError, InternalError, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F

from cq.aio import Threads
from cq.models import Worker
from cq.models.queries import database
from cq.models.sessions import own_sessions
from cq.terminal.text import one_line
from cq.worker.exit_codes import ExitCode

_OUTAGES = (OperationalError, InterfaceError, InternalError)
_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a command from the tasks, and the code it ends with."""

    text: str
    code: ExitCode


def missing_migrations() -> list[str]:
    """The names of cq's migrations that the database lacks."""
    executor = MigrationExecutor(connections[database()])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "cq"]
    return [migration.name for migration, _ in executor.migration_plan(targets)]


def obstacle_of(problem: Error) -> Obstacle | None:
    """
    What a command says about an error of the database instead of a traceback.

    None for an error that is no fault of the database's state, but one of the code.
    """
    connection: Any = connections[database()]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        return None  # no other session sees what is in it
    if found := reach(0, lambda problem: None):
        return found
    if isinstance(problem, _OUTAGES):
        return Obstacle(f"{_named()} gave an error: {_told(problem)}", ExitCode.UNREACHABLE)
    return None


def reach(patience: float, tell: Callable[[str], object]) -> Obstacle | None:
    """
    Wait until the database takes what a worker writes, or say what is in the way.

    Asks on a session beside the project's pool, which would wait for seconds of its own.
    """
    threads = Threads(1, "cq-start", own_sessions)
    try:
        return threads.submit(_reach, patience, tell).result()
    finally:
        threads.shutdown()


def _reach(patience: float, tell: Callable[[str], object]) -> Obstacle | None:
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        failed_to = "did not answer"
        try:
            if missing := missing_migrations():
                return _lacking(missing)
            failed_to = "took no writes"
            # Changes no row, and is refused where a worker could write none.
            Worker.objects.using(database()).filter(pk=_NOBODY).update(beat=F("beat"))
            return None
        except Error as problem:
            connections[database()].close()
            if time.monotonic() + pause > deadline:
                within = f" within {patience:g} s" if patience else ""
                text = f"{_named()} {failed_to}{within}: {_told(problem)}"
                return Obstacle(text, ExitCode.UNREACHABLE)
            tell(one_line(str(problem)))
        Event().wait(pause)
        pause = min(pause * 2, 2.0)


def _lacking(missing: list[str]) -> Obstacle:
    return Obstacle(
        f"The database lacks {len(missing)} migration(s) of cq: {', '.join(missing)}. "
        "Run python manage.py migrate.",
        ExitCode.MIGRATIONS,
    )


def _named() -> str:
    name = connections[database()].settings_dict["NAME"]
    return f"The database {str(name)!r}"


def _told(problem: Error) -> str:
    text = one_line(str(problem)).rstrip(".")
    return f"{text}{'' if text.endswith('?') else '.'} Start it or mend it, or correct DATABASES."

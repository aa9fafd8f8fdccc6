"""django-tasks-db, the database backend of Django's own task framework."""

from __future__ import annotations

import os
import time
from typing import Any

import django

from benchmarks import meter
from benchmarks.contender import Command, Contender, Load, Rows, module, poll

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.contenders.django_settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

try:
    from django_tasks import task
except ModuleNotFoundError:  # Django 6 has the framework itself
    from django.tasks import task  # type: ignore[no-redef]


@task
def noop() -> None:
    """Do nothing."""
    meter.bump()


@task
def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)
    meter.bump()


@task
def stamp(sent: int) -> None:
    """Keep when it began."""
    meter.stamp(sent)


@task
def echo(value: Any) -> Any:
    """Give the argument back."""
    return value


BODIES = {"noop": noop, "nap": nap, "stamp": stamp, "echo": echo}


class DjangoTasksDb(Contender):
    """Processes that take one task at a time."""

    title = "django-tasks-db"
    store = "PostgreSQL"
    settings = (
        "2 × `db_worker --interval 0.01 --no-startup-delay`, the naps in 20 of them; results are "
        "polled for each 2 ms."
    )
    rows = Rows("django_tasks_database_dbtaskresult", {"id": "gen_random_uuid()"})

    def prepare(self) -> None:
        call_command("migrate", verbosity=0)

    def worker_commands(self, load: Load) -> list[Command]:
        options = ["--settings", "benchmarks.contenders.django_settings", "-v", "0"]
        options += ["--interval", "0.01", "--no-startup-delay"]
        return [module("django", "db_worker", *options)] * (20 if load == "nap" else 2)

    def enqueue(self, body: str, *args: Any) -> Any:
        return BODIES[body].enqueue(*args)

    async def aenqueue(self, body: str, *args: Any) -> Any:
        return await BODIES[body].aenqueue(*args)

    def result(self, handle: Any) -> Any:
        def finished() -> bool:
            handle.refresh()
            return bool(handle.is_finished)

        poll(finished)
        return handle.return_value

    def close(self) -> None:
        connections.close_all()


contender = DjangoTasksDb()

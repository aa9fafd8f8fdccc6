"""cq itself, with its default settings: leases, fence, heartbeats, logs and stored results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import django

from benchmarks.contender import Command, Contender, Load, Rows

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402

from benchmarks import tasks  # noqa: E402

MANAGE = str(Path(__file__).resolve().parent.parent / "manage.py")

RECORDED = """
    SELECT count(*), EXTRACT(EPOCH FROM max(t.finished) - w.joined)::float
      FROM cq_task t, (SELECT max(started) AS joined FROM cq_worker) w
     WHERE t.status = 'S' AND t.finished > w.joined
  GROUP BY w.joined
"""


class Cq(Contender):
    """The engine of this repository, on its own Redis layer."""

    title = "cq"
    store = "PostgreSQL"
    settings = (
        "2 × `cq_runworker`, default settings, no uvloop; the naps with `-c 50`. Rows and results "
        "are kept. The rate is counted by the bodies as everywhere; from the rows it is `saved/s`."
    )
    kinds = ("async", "sync", "atomic")
    rows = Rows("cq_task", {"id": "gen_random_uuid()"})

    def prepare(self) -> None:
        call_command("migrate", verbosity=0)

    def worker_commands(self, load: Load) -> list[Command]:
        slots = ["-c", "50"] if load == "nap" else []
        return [[sys.executable, MANAGE, "cq_runworker", "-v", "0", *slots]] * 2

    def enqueue(self, body: str, *args: Any) -> Any:
        return getattr(tasks, body).delay(*args)

    async def aenqueue(self, body: str, *args: Any) -> Any:
        return await getattr(tasks, body).adelay(*args)

    def bulk(self, body: str, count: int) -> None:
        getattr(tasks, body).delay_many([((), {})] * count)

    def result(self, handle: Any) -> Any:
        return handle.wait(30)

    def fan_out(self, children: int) -> None:
        tasks.fan_out.delay(children)

    def recorded(self) -> dict[str, float]:
        with connection.cursor() as cursor:
            cursor.execute(RECORDED)
            count, seconds = cursor.fetchone() or (0, 0.0)
        return {"saved/s": count / seconds} if seconds else {}

    def close(self) -> None:
        connections.close_all()


contender = Cq()

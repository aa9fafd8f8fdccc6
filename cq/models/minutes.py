"""
What happened each minute: the history behind rates, sparklines and charts.

Workers add what they completed to a tally of their own every few seconds; whichever of them
is first in a minute also takes a sample of what waits and runs. A completion itself writes
nothing here. A week is kept; a lost minute harms nobody.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from django.db import models

from cq.models.sql import Dialect

KEPT_MINUTES = 7 * 24 * 60


class Tally(models.Model):
    """What one worker completed of one queue in one minute (counted since 1970)."""

    minute = models.BigIntegerField()
    worker = models.UUIDField()
    queue = models.CharField(max_length=80)
    done = models.IntegerField(default=0, db_default=0)
    failed = models.IntegerField(default=0, db_default=0)

    class Meta:
        app_label = "cq"
        db_table = "cq_tally"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["minute", "worker", "queue"], name="cq_tally_once")
        ]

    def __str__(self) -> str:
        return f"{self.queue}: {self.done} done, {self.failed} failed in minute {self.minute}"


class Sample(models.Model):
    """What stood in the table at one moment of a minute."""

    minute = models.BigIntegerField(primary_key=True)
    waiting = models.IntegerField(default=0, db_default=0)
    running = models.IntegerField(default=0, db_default=0)
    slots = models.IntegerField(default=0, db_default=0)
    oldest = models.FloatField(null=True)
    latency_p50 = models.FloatField(null=True)
    latency_p95 = models.FloatField(null=True)

    class Meta:
        app_label = "cq"
        db_table = "cq_sample"

    def __str__(self) -> str:
        return f"{self.waiting} waiting, {self.running} running in minute {self.minute}"


@dataclass(slots=True)
class Ended:
    """How many attempts ended, and how many of them without success."""

    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class MinuteRow:
    """The tallies of one queue in one stretch of time, of all workers together."""

    minute: int
    queue: str
    done: int
    failed: int


def minute_now(db: Dialect) -> str:
    """The current minute by the database's clock, as an expression of SQL."""
    if db.is_postgres:
        return "(EXTRACT(EPOCH FROM statement_timestamp())::bigint / 60)"
    return "(CAST(strftime('%%s', %(now)s) AS INTEGER) / 60)"


def add_tallies(db: Dialect, worker: UUID, ended: Mapping[str, Ended]) -> None:
    """Add what a worker completed since it last did so, by queue, to the current minute."""
    if not ended:
        return
    rows = [{"queue": q, "done": e.done, "failed": e.failed} for q, e in sorted(ended.items())]
    source = db.recordset("v", {"queue": "text", "done": "int", "failed": "int"})
    db.count(
        f"""INSERT INTO cq_tally AS c (minute, worker, queue, done, failed)
        SELECT {minute_now(db)}, %(worker)s, v.queue, v.done, v.failed FROM {source} WHERE true
        ON CONFLICT (minute, worker, queue) DO UPDATE
        SET done = c.done + excluded.done, failed = c.failed + excluded.failed""",
        {"rows": json.dumps(rows), "worker": worker.hex},
    )


def begin_minute(db: Dialect) -> int | None:
    """Take the sample of this minute upon oneself; None if somebody else has."""
    rows = db.run(
        f"INSERT INTO cq_sample (minute) SELECT {minute_now(db)} WHERE true "
        "ON CONFLICT (minute) DO NOTHING RETURNING minute"
    )
    return rows[0][0] if rows else None


def keep_sample(db: Dialect, sample: Sample) -> None:
    """Fill the row of a minute, and drop what is older than a week."""
    db.count(
        """UPDATE cq_sample SET waiting = %(waiting)s, running = %(running)s, slots = %(slots)s,
        oldest = %(oldest)s, latency_p50 = %(p50)s, latency_p95 = %(p95)s
        WHERE minute = %(minute)s""",
        {
            "minute": sample.minute,
            "waiting": sample.waiting,
            "running": sample.running,
            "slots": sample.slots,
            "oldest": sample.oldest,
            "p50": sample.latency_p50,
            "p95": sample.latency_p95,
        },
    )
    before = {"before": sample.minute - KEPT_MINUTES}
    db.count("DELETE FROM cq_tally WHERE minute < %(before)s", before)
    db.count("DELETE FROM cq_sample WHERE minute < %(before)s", before)


def tallies(db: Dialect, minutes: int, *, step: int = 1) -> list[MinuteRow]:
    """What was completed in the last `minutes`, by queue, in stretches of `step` minutes."""
    rows = db.run(
        f"""SELECT c.minute / %(step)s * %(step)s AS since, c.queue, SUM(c.done), SUM(c.failed)
        FROM cq_tally AS c WHERE c.minute > {minute_now(db)} - %(minutes)s
        GROUP BY since, c.queue ORDER BY since, c.queue""",
        {"minutes": minutes, "step": step},
    )
    return [MinuteRow(int(row[0]), row[1], int(row[2]), int(row[3])) for row in rows]


def samples(db: Dialect, minutes: int) -> list[Sample]:
    """The samples of the last `minutes`, oldest first."""
    rows = db.run(
        f"""SELECT minute, waiting, running, slots, oldest, latency_p50, latency_p95
        FROM cq_sample WHERE minute > {minute_now(db)} - %(minutes)s ORDER BY minute""",
        {"minutes": minutes},
    )
    names = ("minute", "waiting", "running", "slots", "oldest", "latency_p50", "latency_p95")
    return [Sample(**dict(zip(names, row, strict=True))) for row in rows]

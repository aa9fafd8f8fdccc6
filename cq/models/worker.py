"""
One row per start of a worker process, and the proof that it is alive.

The id is new at every start, so a restarted worker can never be taken for its
predecessor. `beat` is a counter that rescuers watch by their own clocks; no timestamp
of this row decides anything.
"""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from cq.models.columns import new_id


class Worker(models.Model):
    """A worker process: what it listens to, where it runs, and its last heartbeat."""

    id = models.UUIDField(primary_key=True, default=new_id)
    alive = models.BooleanField(default=True)
    beat = models.BigIntegerField(default=0)
    beat_at = models.DateTimeField(db_default=Now())
    started = models.DateTimeField(db_default=Now())
    state = models.CharField(max_length=12, default="running")
    hostname = models.CharField(max_length=200, default="")
    host_id = models.CharField(max_length=200, default="")
    boot_id = models.CharField(max_length=200, default="")
    pid_namespace = models.CharField(max_length=200, default="")
    pid = models.IntegerField(default=0)
    pid_started = models.CharField(max_length=200, default="")
    queues = models.JSONField(null=True)
    names = models.JSONField(default=list)
    slots = models.IntegerField(default=0)

    class Meta:
        app_label = "cq"
        db_table = "cq_worker"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["alive"], name="cq_worker_alive")
        ]

    def __str__(self) -> str:
        return f"{self.hostname}:{self.pid} ({self.state})"

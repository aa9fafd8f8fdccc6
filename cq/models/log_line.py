"""
The record of a tree: its stream, its log lines, and the progress of its tasks.

A stream row exists from the first line, or from the second task of a tree; it hands out
one sequence per root, 1…n without holes, under its own row lock. Progress has a table of
its own so that nobody but its holder ever writes a running task's row.
"""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Stream(models.Model):
    """The head of one tree's record: the last sequence number, and what is still open."""

    root = models.UUIDField(primary_key=True)
    seq = models.BigIntegerField(default=0, db_default=0)
    open = models.BooleanField(default=True, db_default=True)
    tree_open = models.IntegerField(default=0, db_default=0)

    class Meta:
        app_label = "cq"
        db_table = "cq_stream"

    def __str__(self) -> str:
        return f"{self.root} at {self.seq}"


class LogLine(models.Model):
    """One line of a tree's record, at its place in the sequence."""

    pk = models.CompositePrimaryKey("root", "seq")
    root = models.UUIDField()
    seq = models.BigIntegerField()
    task = models.UUIDField()
    func_name = models.CharField(max_length=200)
    attempt = models.SmallIntegerField(default=0)
    level = models.SmallIntegerField(default=20)
    message = models.TextField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "cq"
        db_table = "cq_logline"

    def __str__(self) -> str:
        return f"{self.seq}: {self.message}"


class Progress(models.Model):
    """How far a task says it has come."""

    task = models.UUIDField(primary_key=True)
    root = models.UUIDField()
    done = models.FloatField(default=0)
    total = models.FloatField(null=True)
    message = models.TextField(default="", blank=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "cq"
        db_table = "cq_progress"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["root"], name="cq_progress_root")
        ]

    def __str__(self) -> str:
        return f"{self.done} of {self.total}"

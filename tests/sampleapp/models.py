"""
Evidence: rows that task bodies write, so that a test counts what really ran.

An Effect is one body reaching one point; a test compares effects with tasks to prove that
nothing ran twice and nothing was lost. A Note is something a task creates, unique on demand.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Effect(models.Model):
    """One body was here: which task and attempt, in which process, and what it did."""

    task = models.UUIDField(db_index=True)
    attempt = models.IntegerField()
    pid = models.IntegerField()
    kind = models.CharField(max_length=40)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.kind} of {self.task} (attempt {self.attempt}, process {self.pid})"


class Note(models.Model):
    """A text; `unique` may be None, and no two notes share another value."""

    text = models.TextField()
    unique = models.CharField(max_length=80, null=True, unique=True)

    def __str__(self) -> str:
        return self.text

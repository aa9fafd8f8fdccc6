"""
The demo's own rows: a picture that was asked for, and the beats of its heartbeat.

The work on a picture is not described here: it is the tree of tasks below `root`.
"""

import uuid

from django.db import models
from django.urls import reverse

from picture.files import Folder
from picture.painting import Grid


class Picture(models.Model):
    """One uploaded picture."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    # No foreign key: the workers delete old tasks by themselves, and the picture may stay.
    root = models.UUIDField("root task", null=True, editable=False)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("picture", args=[self.pk])

    @property
    def grid(self) -> Grid:
        return Grid.fit(self.width, self.height)

    @property
    def folder(self) -> Folder:
        return Folder.of(self.pk)


class Beat(models.Model):
    """One beat of the repeating task: when, and in which process."""

    at = models.DateTimeField(auto_now_add=True)
    pid = models.PositiveIntegerField()

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S}"

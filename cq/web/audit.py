"""
The audit: who did what, to which row, and when, as entries of the admin's own log.

Where the admin is not installed, or nobody is logged in, there is nobody to name and no entry
is made.
"""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Model

from cq.models import Task
from cq.models.sql import database

CHANGE = 2
"""What the admin calls a change; its constant cannot be imported where it is not installed."""


def note(user: Any, task: UUID, sentence: str) -> None:
    """Write down what `user` has just done to a task of which only the id is at hand."""
    if not _can_be_named(user):
        return
    rows = Task.objects.using(database()).filter(pk=task)
    name = rows.values_list("func_name", flat=True).first() or "task"
    _enter(user, Task, task, f"{name} {task}", sentence)


def note_row(user: Any, row: Model, sentence: str) -> None:
    """Write down what `user` has just done to a row."""
    if _can_be_named(user):
        _enter(user, type(row), row.pk, str(row), sentence)


def _can_be_named(user: Any) -> bool:
    return user is not None and user.pk is not None and apps.is_installed("django.contrib.admin")


def _enter(user: Any, model: type[Model], pk: Any, shown: str, sentence: str) -> None:
    types = apps.get_model("contenttypes", "ContentType").objects
    apps.get_model("admin", "LogEntry").objects.create(
        user_id=user.pk,
        content_type_id=types.get_for_model(model).pk,
        object_id=str(pk),
        object_repr=shown[:200],
        action_flag=CHANGE,
        change_message=sentence,
    )

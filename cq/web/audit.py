"""
The audit: who did what to which task, and when, as entries of the admin's own log.

Where the admin is not installed, or nobody is logged in, there is nobody to name and no entry
is made.
"""

from typing import Any
from uuid import UUID

from django.apps import apps

from cq.models import Task
from cq.models.sql import database

CHANGE = 2
"""What the admin calls a change; its constant cannot be imported where it is not installed."""


def note(user: Any, task: UUID, sentence: str) -> None:
    """Write down what `user` has just done to a task."""
    if user is None or user.pk is None or not apps.is_installed("django.contrib.admin"):
        return
    rows = Task.objects.using(database()).filter(pk=task)
    name = rows.values_list("func_name", flat=True).first() or "task"
    types = apps.get_model("contenttypes", "ContentType").objects
    apps.get_model("admin", "LogEntry").objects.create(
        user_id=user.pk,
        content_type_id=types.get_for_model(Task).pk,
        object_id=str(task),
        object_repr=f"{name} {task}"[:200],
        action_flag=CHANGE,
        change_message=sentence,
    )

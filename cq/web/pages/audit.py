"""
Who did what from a page: an entry in the admin's log where there is one, and in Python's.
"""

import logging
from typing import Any

from django.apps import apps
from django.contrib import messages
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest

logger = logging.getLogger("cq.audit")

_CHANGE = 2  # django.contrib.admin.models.CHANGE; that module needs the admin installed
_LEVELS = {"success": messages.SUCCESS, "warning": messages.WARNING, "error": messages.ERROR}


def note(request: HttpRequest, row: Model, text: str) -> None:
    """Record that the user of this request did something to a row."""
    logger.info("%s: %s %s", request.user.pk, text, row.pk)
    if not apps.is_installed("django.contrib.admin"):
        return
    log: Any = apps.get_model("admin", "LogEntry")
    log.objects.create(
        user_id=request.user.pk,
        content_type_id=ContentType.objects.get_for_model(type(row)).pk,
        object_id=str(row.pk),
        object_repr=str(row)[:200],
        action_flag=_CHANGE,
        change_message=text,
    )


def say(request: HttpRequest, text: str, level: str) -> None:
    """Tell the user on the next page; silent in a project without django.contrib.messages."""
    messages.add_message(request, _LEVELS[level], text, fail_silently=True)

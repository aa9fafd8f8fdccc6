"""
Who did what from a page: an entry in the admin's log where there is one, and in Python's.
"""

import logging

from django.contrib import messages
from django.db.models import Model
from django.http import HttpRequest

from cq.web import audit

logger = logging.getLogger("cq.audit")

_LEVELS = {"success": messages.SUCCESS, "warning": messages.WARNING, "error": messages.ERROR}


def note(request: HttpRequest, row: Model, text: str) -> None:
    """Record that the user of this request did something to a row."""
    name = row._meta.model_name
    logger.info("User %s, %s %s: %s", request.user.pk, name, row.pk, text)
    audit.note_row(request.user, row, text)


def say(request: HttpRequest, text: str, level: str) -> None:
    """Tell the user on the next page; silent in a project without django.contrib.messages."""
    messages.add_message(request, _LEVELS[level], text, fail_silently=True)

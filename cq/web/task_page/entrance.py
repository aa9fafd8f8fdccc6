"""
The entrance of the page: who asks, and what they may do with the task.
"""

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest

from cq.errors import Refused
from cq.web import access
from cq.web.access import Grant


def user_of(request: HttpRequest) -> Any:
    """The user of a request, or None where the project has no users."""
    return getattr(request, "user", None)


def granted(request: HttpRequest, task: UUID) -> Grant:
    """What the user of a request may do with a task; 404 for one that is not theirs to see."""
    try:
        return access.grant(task, user=user_of(request))
    except Refused as error:
        raise Http404 from error

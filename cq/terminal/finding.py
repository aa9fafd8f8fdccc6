"""
From what a person typed to the task that is meant, and to the page that shows it.

An id may be cut short, as long as it stands for one task. Ids begin with the time, so a
root and its subtasks often share their first signs: then the root is meant.
"""

import re
from collections.abc import Sequence
from urllib.parse import urljoin
from uuid import UUID

from django.urls import NoReverseMatch, reverse

from cq import conf
from cq.errors import CQError
from cq.models import Task
from cq.models.queries import database
from cq.terminal.text import one_line

_SIGNS = 32
_SHOWN = 3


def find_task(text: str) -> Task:
    """Return the task whose id begins like this; raises CQError with one sentence."""
    signs = text.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", signs):
        raise CQError(
            f"{one_line(text, 60)!r} is not the id of a task. Expected up to 32 hexadecimal signs, "
            "or as few as name one task. Copy the id from the log, the admin or task.id."
        )
    first, last = (UUID(hex=signs.ljust(_SIGNS, filler)) for filler in "0f")
    tasks = Task.objects.using(database()).filter(id__gte=first, id__lte=last).order_by("id")
    found = list(tasks[: _SHOWN + 1])
    if len(found) > 1:
        roots = list(tasks.roots()[: _SHOWN + 1])
        found = roots if roots else found
    if len(found) == 1:
        return found[0]
    if not found:
        raise CQError(
            f"There is no task {_spelled(signs)}. It may have been pruned, or its transaction was "
            "rolled back or has not ended. Compare the id with the admin's list."
        )
    raise CQError(
        f"{len(found) if len(found) <= _SHOWN else f'More than {_SHOWN}'} tasks begin with "
        f"{signs!r}: {_named(found)}. Type more signs of the one you mean."
    )


def page_of(task: Task) -> str:
    """
    Return the address of the task's page, or "" where the project serves none.

    Without CQ["SITE_URL"] it is the path alone: a command cannot know the host.
    """
    return _address("cq:task", task.id)


def overview() -> str:
    """Return the address of the overview, or "" where the project serves none."""
    return _address("cq:overview")


def _address(name: str, *args: object) -> str:
    try:
        path = reverse(name, args=args)
    except (NoReverseMatch, AttributeError):  # the latter of settings without a ROOT_URLCONF
        return ""
    return urljoin(conf.current().site_url or "", path)


def _spelled(signs: str) -> str:
    return str(UUID(hex=signs)) if len(signs) == _SIGNS else f"whose id begins with {signs!r}"


def _named(tasks: Sequence[Task]) -> str:
    shown = [f"{task.id} ({one_line(task.func_name, 40)})" for task in tasks[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(tasks) > _SHOWN else "")

"""
The search box of the task list: words with qualifiers become what a list is to show.

`state:failed name:shop.* since:1h parent:none`. Whatever cannot be read is said in a
sentence of its own, and the rest of the search holds.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from cq.definition.status import ACTIVE, CLAIMABLE, TERMINAL, Status
from cq.models.task_list import Wanted

MAX_LENGTH = 500
FAILED = frozenset({Status.FAILURE, Status.INCOMPLETE, Status.LOST})
GROUPS = {"active": ACTIVE, "failed": FAILED, "ended": TERMINAL, "queue": CLAIMABLE}
STATES: dict[str, frozenset[Status]] = {
    **{status.name.lower(): frozenset({status}) for status in Status},
    **GROUPS,
}
QUALIFIERS = {
    "name": "name:shop.tasks.pay, or a part of it: name:pay*",
    "state": "state:running, state:failed, state:retry,queued",
    "queue": "queue:default",
    "worker": "worker:web-1, what it runs now",
    "id": "id:… a task and everything below it",
    "since": "since:15m, since:2h, since:2026-11-20",
    "until": "until:1h",
    "parent": "parent:none for roots, parent:any for all, parent:… for the subtasks of one",
    "owner": "owner:42",
    "error": "error:timeout, a part of the message",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Search:
    """A search that was read: what it wants, and what could not be understood."""

    text: str
    wanted: Wanted = field(default_factory=Wanted)
    problems: tuple[str, ...] = ()


def read(text: str) -> Search:
    """Read the text of the search box; never raises."""
    text = " ".join(text.replace("\0", " ").split())[:MAX_LENGTH]
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.replace('"', " ").replace("'", " ").split()
    wanted, problems = Wanted(), []
    for word in words:
        qualifier, colon, value = word.partition(":")
        try:
            if not colon:
                wanted = _free(wanted, word)
            elif qualifier.lower() not in _READERS:
                problems.append(
                    f"There is no qualifier {qualifier!r}. Expected one of "
                    f"{', '.join(_READERS)}. Put quotes around a word with a colon in it."
                )
            elif value:
                wanted = _READERS[qualifier.lower()](wanted, value)
        except ValueError as error:
            problems.append(str(error))
    return Search(text, wanted, tuple(problems))


def write(text: str, qualifier: str, value: str | None) -> str:
    """The search text with one qualifier set to a value, or without it."""
    words = [word for word in text.split() if not word.lower().startswith(f"{qualifier}:")]
    return " ".join([*words, f"{qualifier}:{value}"] if value else words)


def _free(wanted: Wanted, word: str) -> Wanted:
    try:
        return replace(wanted, id=UUID(word))
    except ValueError:
        return _name(wanted, f"*{word}*")


def _name(wanted: Wanted, value: str) -> Wanted:
    part = value.strip("*")
    return replace(wanted, name="" if "*" in value else value, name_part=part * ("*" in value))


def _state(wanted: Wanted, value: str) -> Wanted:
    statuses: set[Status] = set()
    for word in value.lower().split(","):
        if word not in STATES:
            raise ValueError(
                f"There is no state {word!r}. Expected one of {', '.join(STATES)}. Correct it."
            )
        statuses |= STATES[word]
    return replace(wanted, statuses=frozenset(statuses))


def _id(name: str, value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise ValueError(
            f"{name}:{value[:40]} is no id. Expected 32 hexadecimal digits, with or without "
            "hyphens. Copy it from a task."
        ) from None


def _parent(wanted: Wanted, value: str) -> Wanted:
    if value.lower() in ("none", "any"):
        return replace(wanted, roots=value.lower() == "none", parent=None)
    return replace(wanted, parent=_id("parent", value))


def _moment(name: str, value: str) -> datetime:
    number, unit = value[:-1], value[-1:].lower()
    if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 6:
        return timezone.now() - timedelta(seconds=int(number) * _UNITS[unit])
    try:
        found = parse_datetime(value if "T" in value else f"{value}T00:00")
    except ValueError:
        found = None
    if found is None:
        raise ValueError(
            f"{name}:{value[:40]} is no time. Expected a while such as 15m, 2h or 3d, or a date "
            "such as 2026-11-20 or 2026-11-20T08:30. Correct it."
        )
    return found if timezone.is_aware(found) else timezone.make_aware(found)


def _text(field: str) -> Callable[[Wanted, str], Wanted]:
    def put(wanted: Wanted, value: str) -> Wanted:
        changed: dict[str, Any] = {field: value}
        return replace(wanted, **changed)

    return put


_READERS: dict[str, Callable[[Wanted, str], Wanted]] = {
    "name": _name,
    "state": _state,
    "queue": _text("queue"),
    "worker": _text("worker"),
    "id": lambda wanted, value: replace(wanted, id=_id("id", value)),
    "since": lambda wanted, value: replace(wanted, since=_moment("since", value)),
    "until": lambda wanted, value: replace(wanted, until=_moment("until", value)),
    "parent": _parent,
    "owner": _text("owner"),
    "error": _text("error_part"),
}

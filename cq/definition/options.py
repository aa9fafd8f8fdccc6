"""
The options of a task function, and those of a single call.

Both are checked when they are written down: an impossible value is an InvalidOption
that names the option, the value and what is allowed, long before a worker sees it.
"""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from cq.definition.retry_policy import MAX_RETRIES, RetryPolicy
from cq.errors import InvalidOption

Coalesce = Literal[False, True, "active"]
RunAfter = datetime | timedelta | float | int

QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}\Z", re.ASCII)
CENTURY = 100 * 365 * 86400
LONGEST_TTL = 2**31 - 1  # the column; 68 years


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What `@task(...)` says about every run of a function; times are seconds."""

    name: str
    queue: str = "default"
    priority: int = 0
    retry: RetryPolicy
    timeout: float | None = None
    atomic: bool = True
    coalesce: Coalesce = False
    result_ttl: int | None = None
    store_result: bool = True
    at_most_once: bool = False
    pool: Literal["thread", "process"] = "thread"

    def __post_init__(self) -> None:
        check_name(self.name)
        check_queue(self.queue)
        check_priority(self.priority)
        check_seconds("timeout", self.timeout, above_zero=True)
        check_whole("result_ttl", self.result_ttl, LONGEST_TTL)
        check_coalesce(self.coalesce)
        check_flag("atomic", self.atomic)
        check_flag("store_result", self.store_result)
        check_flag("at_most_once", self.at_most_once)
        if self.pool not in ("thread", "process"):
            raise InvalidOption(
                f"pool is {self.pool!r}, which is neither 'thread' nor 'process'. "
                "Use 'process' for work that must be killable or keeps a CPU busy."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What one call says beside its arguments; None leaves it to the task function."""

    queue: str | None = None
    priority: int | None = None
    run_after: RunAfter | None = None
    expires: RunAfter | None = None
    retries: int | None = None
    timeout: float | None = None
    coalesce: Coalesce | None = None
    unique_key: str | None = None
    result_ttl: int | None = None
    force_chain: bool = False
    pass_result: bool | None = None
    submit: bool = True
    parent: Any = None
    previous: Any = None
    owner: str | int | UUID | None = None
    repeating: int | None = None
    tick: datetime | None = None
    missed: int = 0

    def __post_init__(self) -> None:
        if self.queue is not None:
            check_queue(self.queue)
        if self.priority is not None:
            check_priority(self.priority)
        check_seconds("timeout", self.timeout, above_zero=True)
        check_whole("result_ttl", self.result_ttl, LONGEST_TTL)
        check_whole("retries", self.retries, MAX_RETRIES)
        if self.coalesce is not None:
            check_coalesce(self.coalesce)
        check_moment("run_after", self.run_after)
        check_moment("expires", self.expires)
        check_key(self.unique_key)
        check_owner(self.owner)
        check_flag("force_chain", self.force_chain)
        check_flag("submit", self.submit)
        if self.pass_result is not None:
            check_flag("pass_result", self.pass_result)
        uuid_of(self.parent, "parent")
        uuid_of(self.previous, "previous")

    def merged(self, **changes: Any) -> "CallOptions":
        """These options with some of them replaced; an unknown one is an InvalidOption."""
        return replace(self, **known(changes)) if changes else self


_CALL_OPTIONS = frozenset(field.name for field in fields(CallOptions))


def known(options: dict[str, Any]) -> dict[str, Any]:
    """The same options, or an InvalidOption naming the one that does not exist."""
    for name in options:
        if name not in _CALL_OPTIONS:
            raise InvalidOption(unknown_option(name, _CALL_OPTIONS, "a call"), option=name)
    return options


def unknown_option(name: str, options: Iterable[str], owner: str) -> str:
    """The sentence for an option that does not exist, with the nearest that does."""
    listed = sorted(options)
    close = difflib.get_close_matches(name, listed, n=1)
    nearest = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is not an option of {owner}.{nearest} The options are {', '.join(listed)}."


def check_name(name: object) -> None:
    """Refuse a task name that does not fit its column, or that cannot be read on a screen."""
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable():
        raise InvalidOption(
            f"The task name {str(name)[:220]!r} is not a text of 1 to 200 printable characters. "
            "Give a shorter name, such as @task(name='send')."
        )


def check_queue(queue: object) -> None:
    """Refuse a queue name that cannot be part of a channel's name."""
    if not isinstance(queue, str) or not QUEUE_NAME.match(queue):
        shown = repr(queue) if len(repr(queue)) < 100 else repr(queue)[:100] + "…"
        raise InvalidOption(
            f"queue is {shown}, which is no queue name. "
            "Use 1 to 80 of the characters A-Z, a-z, 0-9, '_', '.' and '-'."
        )


def check_priority(priority: object) -> None:
    """Refuse a priority outside -100…100."""
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > 100:
        raise InvalidOption(
            f"priority is {priority!r}, which is not a whole number from -100 to 100. "
            "Higher numbers run first; 0 is the default."
        )


def check_coalesce(coalesce: object) -> None:
    """Refuse anything but False, True and "active"."""
    if coalesce not in (False, True, "active"):
        raise InvalidOption(
            f"coalesce is {coalesce!r}, which is not False, True or 'active'. True merges with "
            "an equal task that has not started, 'active' with a running one as well."
        )


def check_seconds(name: str, value: object, *, above_zero: bool = False) -> None:
    """Refuse a span that is no number, negative, or longer than a century."""
    if value is None:
        return
    fits = False
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        fits = math.isfinite(number) and 0 <= number <= CENTURY and (number > 0 or not above_zero)
    if not fits:
        least = "above 0" if above_zero else "0 or more"
        raise InvalidOption(
            f"{name} is {value!r}, which is not a number {least} and at most {CENTURY}. "
            f"Give {name} such as {name}=30."
        )


def check_whole(name: str, value: object, top: int) -> None:
    """Refuse anything but a whole number from 0 to `top`; None is no number and fine."""
    if value is not None and not (type(value) is int and 0 <= value <= top):
        raise InvalidOption(
            f"{name} is {value!r}, which is not a whole number from 0 to {top}. "
            f"Give {name} such as {name}=3."
        )


def check_flag(name: str, value: object) -> None:
    """Refuse anything but True and False: a text such as "no" would count as yes."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} is {value!r}, which is neither True nor False. Give one.")


def check_key(key: object) -> None:
    """Refuse a unique key that is no text, or an empty one, which everything would share."""
    if key is not None and (not isinstance(key, str) or not key):
        raise InvalidOption(
            f"unique_key is {key!r}, which is not a text. Give one that names the work, such as "
            "unique_key=f'invoice {order.pk}'."
        )


def check_owner(owner: object) -> None:
    """Refuse an owner that is not the primary key of a user."""
    fits = isinstance(owner, str | int | UUID) and not isinstance(owner, bool)
    if owner is not None and not (fits and 1 <= len(str(owner)) <= 200):
        raise InvalidOption(
            f"owner is {owner!r}, which is not a primary key of at most 200 characters. "
            "Pass user.pk."
        )


def check_moment(name: str, value: object) -> None:
    """Refuse a moment that is neither an aware datetime nor a span of seconds."""
    if value is None:
        return
    if not isinstance(value, datetime):
        check_seconds(name, value.total_seconds() if isinstance(value, timedelta) else value)
    elif value.tzinfo is None:
        raise InvalidOption(
            f"{name} is {value!r}, a datetime without a time zone. "
            "Pass an aware one, such as timezone.now() + timedelta(hours=1)."
        )
    elif not 1 < value.year < 9999:
        # A database shifts it by its own zone, and years 0 and 10000 do not exist.
        raise InvalidOption(
            f"{name} is {value!r}, which is out of range. Pass a moment of this century."
        )


def seconds_until(value: RunAfter | None) -> float | None:
    """The span that a relative moment names; None for an absolute one or none at all."""
    if value is None or isinstance(value, datetime):
        return None
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def uuid_of(value: Any, name: str = "task") -> UUID | None:
    """The id of a task given as a row, a UUID or a text; InvalidOption for anything else."""
    if value is None or isinstance(value, UUID):
        return value
    found = value if isinstance(value, str) else getattr(value, "id", None)
    if isinstance(found, UUID):
        return found
    try:
        return UUID(found)
    except (ValueError, TypeError, AttributeError):
        raise InvalidOption(
            f"{name} is {value!r}, which names no task. Pass a task, or its id."
        ) from None


NO_OPTIONS = CallOptions()

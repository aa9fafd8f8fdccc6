"""
The options of a task function, and those of a single call.

Both are checked when they are written down: an impossible value is an InvalidOption
that names the option, the value and what is allowed, long before a worker sees it.
"""

import math
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from cq.definition.retry_policy import RetryPolicy
from cq.errors import InvalidOption

Coalesce = Literal[False, True, "active"]
RunAfter = datetime | timedelta | float | int

QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}\Z", re.ASCII)
CENTURY = 100 * 365 * 86400


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
        check_queue(self.queue)
        check_priority(self.priority)
        check_seconds("timeout", self.timeout, above_zero=True)
        check_seconds("result_ttl", self.result_ttl)
        check_coalesce(self.coalesce)
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 200:
            raise InvalidOption(
                f"The task name {self.name!r} is not a text of 1 to 200 characters. "
                "Give a shorter name, such as @task(name='send')."
            )
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
    owner: str | None = None
    repeating: int | None = None
    tick: datetime | None = None
    missed: int = 0

    def __post_init__(self) -> None:
        if self.queue is not None:
            check_queue(self.queue)
        if self.priority is not None:
            check_priority(self.priority)
        check_seconds("timeout", self.timeout, above_zero=True)
        check_seconds("result_ttl", self.result_ttl)
        check_seconds("retries", self.retries, top=1000)
        if self.coalesce is not None:
            check_coalesce(self.coalesce)
        check_moment("run_after", self.run_after)
        check_moment("expires", self.expires)

    def merged(self, **changes: Any) -> "CallOptions":
        """These options with some of them replaced; an unknown one is an InvalidOption."""
        return replace(self, **known(changes)) if changes else self


_CALL_OPTIONS = frozenset(field.name for field in fields(CallOptions))


def known(options: dict[str, Any]) -> dict[str, Any]:
    """The same options, or an InvalidOption naming the one that does not exist."""
    for name in options:
        if name not in _CALL_OPTIONS:
            raise InvalidOption(
                f"{name!r} is not an option of a call. "
                f"The options are {', '.join(sorted(_CALL_OPTIONS))}."
            )
    return options


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


def check_seconds(
    name: str, value: object, *, above_zero: bool = False, top: float = CENTURY
) -> None:
    """Refuse a span that is no number, negative, or longer than a century."""
    if value is None:
        return
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if fits:
        number = float(value)  # type: ignore[arg-type]
        fits = math.isfinite(number) and 0 <= number <= top and (number > 0 or not above_zero)
    if not fits:
        least = "above 0" if above_zero else "0 or more"
        raise InvalidOption(
            f"{name} is {value!r}, which is not a number {least} and at most {top:g}. "
            f"Give {name} such as {name}=30."
        )


def check_moment(name: str, value: object) -> None:
    """Refuse a moment that is neither an aware datetime nor a span of seconds."""
    if value is None:
        return
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidOption(
                f"{name} is {value!r}, a datetime without a time zone. "
                "Pass an aware one, such as timezone.now() + timedelta(hours=1)."
            )
        return
    check_seconds(name, value.total_seconds() if isinstance(value, timedelta) else value)


def seconds_until(value: RunAfter | None) -> float | None:
    """The span that a relative moment names; None for an absolute one or none at all."""
    if value is None or isinstance(value, datetime):
        return None
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def uuid_of(value: Any) -> UUID | None:
    """The id of a task given as a row, a UUID or a text."""
    if value is None or isinstance(value, UUID):
        return value
    if isinstance(value, str):
        return UUID(value)
    found = value.id
    return found if isinstance(found, UUID) else UUID(str(found))


NO_OPTIONS = CallOptions()

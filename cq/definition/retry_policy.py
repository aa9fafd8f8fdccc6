"""
Retry policy: how often a failed task is tried again, and how late.

Built once when `@task` decorates, so that a wrong value is an error at import. The engine
asks two things of it after a failed attempt: `wants(exc)` and `delay(retry_number)`.
Nothing here counts attempts or knows the time.
"""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn, Self

from cq.errors import InvalidOption

logger = logging.getLogger("cq.definition")

BASE_SECONDS = 2.0
CAP_SECONDS = 600.0
MAX_RETRIES = 10_000
MAX_SECONDS = 10 * 366 * 86400.0

Predicate = Callable[[BaseException], object]
Matcher = type[BaseException] | Predicate
Backoff = float | Sequence[float] | None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How a task function answers a failure.

    `exceptions` is None for any Exception, else classes and predicates of which one must
    match. `backoff` is None for exponential with full jitter, else the seconds before retry
    1, 2, … with the last one repeated.
    """

    retries: int = 0
    exceptions: tuple[Matcher, ...] | None = None
    backoff: tuple[float, ...] | None = None

    @classmethod
    def build(
        cls,
        retries: int = 0,
        retry_exceptions: Iterable[Matcher] | None = None,
        backoff: Backoff = None,
    ) -> Self:
        """Check the three options of `@task`, or raise InvalidOption that names the wrong one."""
        if type(retries) is not int or not 0 <= retries <= MAX_RETRIES:
            _refuse("retries", retries, f"a whole number from 0 to {MAX_RETRIES}", "retries=3")
        exceptions = None if retry_exceptions is None else _matchers(retry_exceptions)
        return cls(retries, exceptions, None if backoff is None else _seconds(backoff))

    def delay(self, retry_number: int, random: Callable[[], float] = random.random) -> float:
        """
        Return the seconds to wait before retry `retry_number`, the first being 1.

        The default doubles from 2 seconds up to 600 and takes a random part of it, so that
        tasks which failed together do not come back together.
        """
        if self.backoff is not None:
            return self.backoff[min(retry_number, len(self.backoff)) - 1]
        # The exponent is bounded too: 2.0 ** 10_000 is an OverflowError, not infinity.
        return float(random() * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(retry_number - 1, 32)))

    def wants(self, exc: BaseException) -> bool:
        """
        Say whether a task that failed with `exc` is worth another attempt.

        Without a list, any Exception is; SystemExit and its kin are only when listed. A
        predicate that raises counts as no, and is logged: the failure at hand must be stored.
        """
        if self.exceptions is None:
            return isinstance(exc, Exception)
        return any(_matches(matcher, exc) for matcher in self.exceptions)


def _matches(matcher: Matcher, exc: BaseException) -> bool:
    if isinstance(matcher, type):
        return isinstance(exc, matcher)
    try:
        return bool(matcher(exc))
    except Exception:  # user code runs here, and the engine must still store the failure
        logger.exception("The retry predicate %r raised; %s is not retried.", matcher, type(exc))
        return False


def _matchers(given: Iterable[Matcher]) -> tuple[Matcher, ...]:
    expected = "a list of exception classes and of functions that take the exception"
    example = "retry_exceptions=[ConnectionError]"
    if isinstance(given, (str, type)) or not isinstance(given, Iterable):
        _refuse("retry_exceptions", given, expected, example)
    matchers = tuple(given)
    for matcher in matchers:
        is_exception = isinstance(matcher, type) and issubclass(matcher, BaseException)
        if not (is_exception or (callable(matcher) and not isinstance(matcher, type))):
            _refuse("retry_exceptions", matcher, expected, example)
    return matchers


def _seconds(backoff: float | Sequence[float]) -> tuple[float, ...]:
    given = tuple(backoff) if isinstance(backoff, (list, tuple)) else (backoff,)
    for seconds in given:
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (number and isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
            _refuse_backoff(backoff)
    if not given:
        _refuse_backoff(backoff)
    return tuple(float(seconds) for seconds in given)


def _refuse_backoff(backoff: object) -> NoReturn:
    expected = "a number of seconds, 0 or more, or a list of them, one per retry"
    _refuse("backoff", backoff, expected, "backoff=30 or backoff=[1, 10, 60]")


def _refuse(option: str, value: object, expected: str, example: str) -> NoReturn:
    raise InvalidOption(
        f"{option} is {value!r}. It must be {expected}. For example {example}.",
        option=option,
        value=value,
    )

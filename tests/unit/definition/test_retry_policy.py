"""Retry policies: which values build one, how late a retry comes, what is worth one."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.definition.retry_policy import CAP_SECONDS, RetryPolicy
from cq.errors import InvalidOption


def half() -> float:
    return 0.5


def test_the_default_retries_nothing_but_would_take_any_exception() -> None:
    policy = RetryPolicy.build()
    assert policy.retries == 0
    assert policy.wants(ValueError())
    assert not policy.wants(SystemExit())
    assert not policy.wants(KeyboardInterrupt())


@pytest.mark.parametrize(
    ("number", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (8, 128.0), (9, 256.0), (10, 300.0)]
)
def test_the_default_doubles_from_two_seconds_to_the_cap(number: int, seconds: float) -> None:
    assert RetryPolicy.build(retries=20).delay(number, half) == seconds


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_jitter_is_full_and_bounded(number: int, drawn: float) -> None:
    delay = RetryPolicy.build(retries=10_000).delay(number, lambda: drawn)
    assert 0 <= delay <= CAP_SECONDS


@pytest.mark.parametrize("backoff", [0, 7, 2.5])
def test_a_number_is_fixed_seconds(backoff: float) -> None:
    policy = RetryPolicy.build(retries=3, backoff=backoff)
    assert [policy.delay(n, half) for n in (1, 2, 3)] == [float(backoff)] * 3


def test_a_list_is_per_retry_and_its_last_entry_repeats() -> None:
    policy = RetryPolicy.build(retries=5, backoff=[1, 10, 60])
    assert [policy.delay(n, half) for n in (1, 2, 3, 4, 5)] == [1, 10, 60, 60, 60]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"retries": -1}, "retries is -1"),
        ({"retries": True}, "retries is True"),
        ({"retries": 1.5}, "retries is 1.5"),
        ({"retries": "3"}, "retries is '3'"),
        ({"retries": 10_001}, "retries is 10001"),
        ({"backoff": -1}, "backoff is -1"),
        ({"backoff": float("nan")}, "backoff is nan"),
        ({"backoff": float("inf")}, "backoff is inf"),
        ({"backoff": True}, "backoff is True"),
        ({"backoff": "fast"}, "backoff is 'fast'"),
        ({"backoff": []}, r"backoff is \[\]"),
        ({"backoff": [1, None]}, r"backoff is \[1, None\]"),
        ({"backoff": 10**12}, "backoff is 1000000000000"),
        ({"retry_exceptions": ValueError}, "retry_exceptions is <class 'ValueError'>"),
        ({"retry_exceptions": "ValueError"}, "retry_exceptions is 'ValueError'"),
        ({"retry_exceptions": [int]}, "retry_exceptions is <class 'int'>"),
        ({"retry_exceptions": ["ValueError"]}, "retry_exceptions is 'ValueError'"),
        ({"retry_exceptions": 5}, "retry_exceptions is 5"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidOption, match=named) as caught:
        RetryPolicy.build(**options)
    assert caught.value.facts["option"] in options
    assert str(caught.value).endswith(".")


def test_classes_and_predicates_decide() -> None:
    policy = RetryPolicy.build(
        retries=1, retry_exceptions=[ConnectionError, lambda exc: "again" in str(exc)]
    )
    assert policy.wants(ConnectionResetError())
    assert policy.wants(ValueError("try again"))
    assert not policy.wants(ValueError("no"))


def test_an_empty_list_wants_nothing() -> None:
    assert not RetryPolicy.build(retries=1, retry_exceptions=[]).wants(ValueError())


def test_a_listed_exit_is_retried() -> None:
    assert RetryPolicy.build(retries=1, retry_exceptions=[SystemExit]).wants(SystemExit())


def test_a_predicate_that_raises_counts_as_no_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(exc: BaseException) -> bool:
        raise RuntimeError("broken predicate")

    policy = RetryPolicy.build(retries=1, retry_exceptions=[broken, OSError])
    with caplog.at_level(logging.ERROR, "cq.definition"):
        assert not policy.wants(ValueError())
        assert policy.wants(OSError())
    assert "broken" in caplog.text


def test_policies_are_values() -> None:
    assert RetryPolicy.build(retries=2, backoff=5) == RetryPolicy.build(retries=2, backoff=[5.0])

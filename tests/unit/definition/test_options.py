"""The options of a call: impossible values are named before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from cq.definition.options import CallOptions, seconds_until, uuid_of
from cq.errors import InvalidOption

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue", ""),
        ("queue", "x" * 300),
        ("queue", "a\nb"),
        ("queue", "büro"),
        ("priority", "high"),
        ("priority", 10**6),
        ("run_after", -1),
        ("run_after", 10**12),
        ("run_after", float("nan")),
        ("run_after", timedelta(days=-1)),
        ("run_after", datetime(2026, 5, 1)),
        ("run_after", datetime.max.replace(tzinfo=UTC)),
        ("run_after", datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))),
        ("run_after", "tomorrow"),
        ("run_after", True),
        ("expires", -5),
        ("retries", -1),
        ("retries", 2.5),
        ("retries", True),
        ("timeout", 0),
        ("result_ttl", 2.5),
        ("result_ttl", 2**31),
        ("coalesce", "yes"),
        ("unique_key", ""),
        ("unique_key", 5),
        ("owner", ""),
        ("owner", "x" * 201),
        ("owner", True),
        ("owner", SimpleNamespace(pk=1)),
        ("force_chain", "no"),
        ("pass_result", 1),
        ("submit", None),
        ("parent", "not-a-uuid"),
        ("parent", object()),
        ("previous", 5),
    ],
)
def test_an_impossible_value_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        CallOptions(**{option: value})
    assert str(caught.value).startswith(f"{option} is ")
    assert len(str(caught.value)) < 400
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue", "a.B-c_9"),
        ("priority", -100),
        ("run_after", 0),
        ("run_after", 2.5),
        ("run_after", timedelta(hours=1)),
        ("run_after", NOW - timedelta(days=900)),  # the past is now
        ("retries", 0),
        ("coalesce", "active"),
        ("unique_key", "x" * 1_000_000),
        ("owner", 7),
        ("owner", uuid4()),
        ("pass_result", None),
        ("parent", uuid4()),
        ("previous", str(uuid4())),
    ],
)
def test_a_possible_value_is_kept(option: str, value: Any) -> None:
    assert getattr(CallOptions(**{option: value}), option) == value


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidOption, match=r"'que' is not an option of a call. Did you mean 'q"):
        CallOptions().merged(que="x")


def test_merged_leaves_the_rest() -> None:
    options = CallOptions(queue="slow").merged(priority=1)
    assert (options.queue, options.priority) == ("slow", 1)
    assert options.merged() is options


def test_seconds_until_knows_spans_only() -> None:
    assert seconds_until(None) is seconds_until(NOW) is None
    assert seconds_until(timedelta(minutes=1)) == seconds_until(60) == 60.0


def test_a_task_is_named_by_row_id_or_text() -> None:
    id = uuid4()
    assert uuid_of(None) is None
    assert {uuid_of(id), uuid_of(str(id)), uuid_of(SimpleNamespace(id=id))} == {id}
    assert uuid_of(id.hex) == UUID(int=id.int)

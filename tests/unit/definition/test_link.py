"""Links: whether the result is passed is settled when `chain()` is called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cq.definition.link import plan_link as plan_link_within
from cq.definition.link import plan_subtask as plan_subtask_within
from cq.errors import InvalidArguments, InvalidOption

plan_link = partial(plan_link_within, max_args_bytes=10_000)
plan_subtask = partial(plan_subtask_within, max_args_bytes=10_000)


def none(cqt: Any) -> None: ...


def one(cqt: Any, a: int) -> None: ...


def two(cqt: Any, a: int, b: int = 0) -> None: ...


def many(cqt: Any, *args: Any) -> None: ...


def named(cqt: Any, *, a: int) -> None: ...


@pytest.mark.parametrize(
    ("body", "args", "kwargs", "passes"),
    [
        (none, (), {}, False),
        (one, (), {}, True),
        (one, (4,), {}, False),
        (one, ((4,),), {}, False),  # the historic form
        (two, (4,), {}, True),
        (two, ((4,),), {}, True),
        (two, (4, 5), {}, False),
        (two, (), {"a": 1}, False),
        (two, (), {"b": 1}, True),
        (many, (1, 2, 3), {}, True),
        (named, (), {"a": 1}, False),
        (two, (4,), {"pass_result": False}, False),
        (many, (), {"pass_result": False}, False),
        (one, (), {"pass_result": True}, True),
    ],
)
def test_the_result_is_passed_where_it_fits(
    make_task: Callable[..., Any], body: Any, args: Any, kwargs: Any, passes: bool
) -> None:
    plan = plan_link(make_task(body), args, dict(kwargs))
    assert plan.pass_result is passes


def test_an_explicit_wish_that_cannot_be_met_is_an_error_now(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        plan_link(make_task(one), (4,), {"pass_result": True})
    with pytest.raises(InvalidArguments, match="missing a required argument: 'a'"):
        plan_link(make_task(one), (), {"pass_result": False})


def test_a_link_that_cannot_be_called_either_way(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        plan_link(make_task(one), (1, 2), {})


def test_a_wish_is_yes_or_no(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidOption, match="pass_result is 'first'"):
        plan_link(make_task(one), (), {"pass_result": "first"})


def test_options_of_the_link(make_task: Callable[..., Any]) -> None:
    function = make_task(two)
    plan = plan_link(function, ((4,), {}), {"force_chain": True, "result_ttl": 60})
    assert (plan.force_chain, plan.result_ttl, plan.args) == (True, 60, "[4]")
    plan = plan_link(function.using(queue="slow", force_chain=True), (4,), {})
    assert (plan.force_chain, plan.queue) == (True, "slow")


def test_a_bad_argument_is_named_by_its_own_index(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArguments, match=r"^args\[0\]: bytes"):
        plan_link(make_task(two), (b"x",), {})
    with pytest.raises(InvalidArguments, match=r"^args\[0\]: bytes"):
        plan_subtask(make_task(two), (b"x",), {})


def test_a_subtask_is_the_plain_call(make_task: Callable[..., Any]) -> None:
    plan = plan_subtask(make_task(two), ((1,), {"b": 2}), {})
    assert (plan.args, plan.kwargs, plan.pass_result) == ("[1]", '{"b":2}', False)

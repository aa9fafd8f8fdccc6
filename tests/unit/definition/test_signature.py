"""Calls as values: the forms in which one may be written, and the row that it plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cq.definition.options import CallOptions
from cq.definition.signature import Signature, new_task, split_call
from cq.definition.status import Status
from cq.errors import InvalidArguments


def add(cqt: Any, first: int, second: int = 0) -> int:
    return first + second


def take(cqt: Any, item: Any, /, *rest: Any, flag: bool = False, **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("written", "args", "kwargs"),
    [
        (((), {}), (), {}),
        (((1,), {"x": 2}), (1,), {"x": 2}),
        # The historic form: one tuple, and a dict behind it.
        ((((1, 2),), {}), (1, 2), {}),
        ((((),), {}), (), {}),
        ((((1,), {"x": 2}), {}), (1,), {"x": 2}),
        ((((1,),), {"x": 2}), (1,), {"x": 2}),
        ((((1,),), {"kwargs": {"x": 2}}), (1,), {"x": 2}),
        (((), {"args": (1,), "kwargs": {"x": 2}}), (1,), {"x": 2}),
        (((), {"args": [1]}), (1,), {}),
        (((), {"args": None, "kwargs": None}), (), {}),
        (((), {"kwargs": {"x": 2}}), (), {"x": 2}),
        # Lists and dicts are arguments like any other.
        ((([1],), {}), ([1],), {}),
        ((([1], {"x": 2}), {}), ([1], {"x": 2}), {}),
        ((((1,), 2), {}), ((1,), 2), {}),
        ((((1,), {"x": 2}, 3), {}), ((1,), {"x": 2}, 3), {}),
        (((1,), {"args": (2,)}), (1,), {"args": (2,)}),
        (((), {"args": (2,), "x": 1}), (), {"args": (2,), "x": 1}),
    ],
)
def test_the_forms_of_a_call(written: Any, args: Any, kwargs: Any) -> None:
    assert split_call(*written) == (args, kwargs)


@pytest.mark.parametrize("args", ["x", {"a": 1}, 5])
def test_args_that_are_no_list(args: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"args is .* no list of arguments"):
        split_call((), {"args": args})


def test_kwargs_that_are_no_dict() -> None:
    with pytest.raises(InvalidArguments, match=r"kwargs is .* no dict of arguments"):
        split_call((), {"kwargs": [1]})


def test_the_planned_row(make_task: Callable[..., Any]) -> None:
    function = make_task(add, queue="mail", priority=3, result_ttl=60)
    plan = new_task(Signature(function, (1,), {"second": 2}))
    assert (plan.func_name, plan.status) == (function.name, Status.QUEUED)
    assert (json.loads(plan.args), json.loads(plan.kwargs)) == ([1], {"second": 2})
    assert (plan.queue, plan.priority, plan.result_ttl) == ("mail", 3, 60)
    assert plan.max_retries is None
    assert plan.unique_key is None


def test_call_options_go_before_those_of_the_function(make_task: Callable[..., Any]) -> None:
    function = make_task(add, queue="mail", priority=3, result_ttl=60)
    when = datetime(2026, 5, 1, tzinfo=UTC)
    options = CallOptions(
        queue="slow", priority=0, result_ttl=0, retries=0, run_after=when, submit=False, owner=7
    )
    plan = new_task(Signature(function, (1,), options=options))
    assert (plan.queue, plan.priority, plan.result_ttl, plan.max_retries) == ("slow", 0, 0, 0)
    assert (plan.run_at, plan.delay, plan.status) == (when, None, Status.PENDING)
    assert plan.owner == "7"


def test_ids_are_new_and_in_order(make_task: Callable[..., Any]) -> None:
    signature = Signature(make_task(add), (1,))
    ids = [new_task(signature).id for _ in range(100)]
    assert ids == sorted(set(ids))
    assert {id.version for id in ids} == {7}


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'first'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"third": 3}, "unexpected keyword argument 'third'"),
        ((1,), {"first": 1}, "multiple values for argument 'first'"),
    ],
)
def test_a_call_that_does_not_fit(
    make_task: Callable[..., Any], args: Any, kwargs: Any, says: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        new_task(Signature(make_task(add), args, kwargs))
    assert says in str(caught.value)
    assert "(first: 'int', second: 'int' = 0)" in str(caught.value)


class User:
    pk = 7
    _meta = "of a model"


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1, {"user": User()}), {}, "args[1].user: User instance; pass user.pk."),
        ((User(),), {}, "args[0]: User instance; pass user.pk."),
        ((1,), {"photo": b"x"}, "kwargs.photo: bytes; store it and pass its name"),
        ((float("nan"),), {}, "args[0]: float nan"),
        ((1,), {"at": datetime(2026, 5, 1)}, "kwargs.at: datetime; pass str(at)"),
        (([{1: "x"}],), {}, "args[0][0]: a key of type int"),
    ],
)
def test_what_json_cannot_carry_is_named_by_its_path(
    make_task: Callable[..., Any], args: Any, kwargs: Any, says: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        new_task(Signature(make_task(take), args, kwargs))
    assert str(caught.value).startswith(says) or says.replace("str(at)", "str(value)") in str(
        caught.value
    )


def test_arguments_beyond_the_limit(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArguments, match="the limit is 1,000; store the data"):
        new_task(Signature(make_task(take), ("x" * 2000,)), max_args_bytes=1000)


# --- coalescing ---------------------------------------------------------------------------------


def key(signature: Signature) -> str | None:
    return new_task(signature).unique_key


def test_equal_calls_have_equal_keys(make_task: Callable[..., Any]) -> None:
    function = make_task(take, coalesce=True)
    one = key(Signature(function, (1,), {"a": 1, "b": 2}))
    assert one == key(Signature(function, (1,), {"b": 2, "a": 1}))
    assert one != key(Signature(function, (2,), {"a": 1, "b": 2}))
    assert one != key(Signature(function, ("1",), {"a": 1, "b": 2}))


def test_a_key_is_short_however_long_it_was_given(make_task: Callable[..., Any]) -> None:
    options = CallOptions(unique_key="x" * 1_000_000)
    found = key(Signature(make_task(add), (1,), options=options))
    assert found is not None
    assert len(found) == 64


def test_a_call_may_decide_otherwise(make_task: Callable[..., Any]) -> None:
    function = make_task(add, coalesce=True)
    assert key(Signature(function, (1,), options=CallOptions(coalesce=False))) is None
    active = new_task(Signature(function, (1,), options=CallOptions(coalesce="active")))
    assert active.unique_running is True

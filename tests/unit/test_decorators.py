"""`@task`: what it accepts, what it refuses and how it says so, and what it makes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction

from cq.decorators import TaskFunction, task
from cq.definition import registry
from cq.errors import DuplicateTask, InvalidArguments, InvalidOption, InvalidTask, RunningLoop

Make = Callable[..., Any]


def send(cqt: Any, address: str, copies: int = 1) -> str:
    """Send a mail."""
    return f"{address} × {copies}"


def other(cqt: Any) -> None: ...


async def fetch(cqt: Any, url: str) -> str:
    return url.upper()


def generate(cqt: Any) -> Iterator[int]:
    yield 1


async def generate_async(cqt: Any) -> AsyncIterator[int]:
    yield 1


def nothing() -> None: ...


def only_keywords(*, cqt: Any) -> None: ...


def only_stars(*args: Any) -> None: ...


class Mail:
    def send(self, address: str) -> None: ...


# --- the forms ----------------------------------------------------------------------------------


def test_bare(make_task: Make) -> None:
    made = make_task(send)
    assert isinstance(made, TaskFunction)
    assert made.name == made.path == f"{__name__}.send"
    assert (made.__name__, made.__doc__, made.__wrapped__) == ("send", "Send a mail.", send)
    assert str(made.call_signature) == "(address: 'str', copies: 'int' = 1) -> 'str'"


@pytest.mark.parametrize("how", ["positional", "keyword"])
def test_named(make_task: Make, how: str) -> None:
    made = make_task(send, "mail.send") if how == "positional" else make_task(send, name="m.send")
    assert made.name in ("mail.send", "m.send")
    assert made.path == f"{__name__}.send"
    assert registry.lookup(made.name) is made
    assert registry.lookup(made.path) is made


def test_without_a_name_in_brackets(make_task: Make) -> None:
    made = task()(send)
    registry.unregister(made)
    assert made.name == f"{__name__}.send"


def test_options_arrive(make_task: Make) -> None:
    made = make_task(
        send,
        queue="mail",
        priority=-5,
        retries=3,
        retry_exceptions=[OSError, lambda error: "busy" in str(error)],
        backoff=[1, 10],
        timeout=2.5,
        atomic=False,
        coalesce="active",
        result_ttl=60,
        store_result=False,
        at_most_once=True,
        pool="process",
    )
    options = made.options
    assert (options.queue, options.priority, options.timeout) == ("mail", -5, 2.5)
    assert (options.retry.retries, options.retry.backoff) == (3, (1.0, 10.0))
    assert (options.atomic, options.coalesce, options.result_ttl) == (False, "active", 60)
    assert (options.store_result, options.at_most_once, options.pool) == (False, True, "process")


def test_a_def_is_atomic_and_an_async_def_is_not(make_task: Make) -> None:
    assert make_task(send).options.atomic is True
    assert make_task(fetch).options.atomic is False
    assert make_task(other, atomic=None).options.atomic is True


def test_others_see_that_an_async_task_function_is_async(make_task: Make) -> None:
    assert iscoroutinefunction(make_task(fetch))
    assert not iscoroutinefunction(make_task(send))
    # Without the mark this warns, and warnings are errors here.
    assert async_to_sync(make_task(fetch))("x") == "X"


# --- what cannot be a task ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (lambda cqt: None, "<lambda>"),
        (Mail.send, "Mail.send"),
        (Mail, "is not a function"),
        (partial(send, address="x"), "is not a function"),
        (staticmethod(send), "is not a function"),
        (print, "is not a function"),
        (generate, "generate is a generator"),
        (generate_async, "generate_async is a generator"),
        (nothing, "def nothing(cqt"),
        (only_keywords, "def only_keywords(cqt"),
        (only_stars, "def only_stars(cqt"),
    ],
)
def test_what_cannot_be_a_task(body: Any, says: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        task(body)
    assert says in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_a_nested_function_is_refused_with_its_place() -> None:
    def inner(cqt: Any) -> None: ...

    with pytest.raises(InvalidTask, match=r"<locals>\.inner \(.*test_decorators\.py:\d+\)"):
        task(inner)


def test_a_task_of_a_task_is_refused(make_task: Make) -> None:
    with pytest.raises(InvalidTask, match="not a function"):
        task(make_task(send))


def test_atomic_async_names_the_way_out() -> None:
    with pytest.raises(InvalidTask, match=r"return await cqt\.commit\(fn\)"):
        task(atomic=True)(fetch)


def test_what_was_refused_is_not_registered() -> None:
    with pytest.raises(InvalidTask):
        task(atomic=True)(fetch)
    with pytest.raises(InvalidOption):
        task(queue="no spaces")(send)
    assert registry.find(f"{__name__}.fetch") is registry.find(f"{__name__}.send") is None


# --- names --------------------------------------------------------------------------------------


def test_two_tasks_with_one_name_are_refused_with_both_places(make_task: Make) -> None:
    make_task(send, "mail")
    with pytest.raises(DuplicateTask) as caught:
        make_task(other, "mail")
    text = str(caught.value)
    for function in (send, other):
        line = inspect.getsourcelines(function)[1]
        assert f"{__name__}.{function.__name__} ({__file__}:{line})" in text
    assert caught.value.name == "mail"  # type: ignore[attr-defined]
    assert registry.find(f"{__name__}.other") is None


def test_a_name_may_not_be_the_path_of_another(make_task: Make) -> None:
    make_task(send)
    with pytest.raises(DuplicateTask):
        make_task(other, f"{__name__}.send")


def test_the_same_function_may_be_decorated_again(make_task: Make) -> None:
    first, second = make_task(send), make_task(send)
    assert first is not second
    assert registry.lookup(second.name) is second


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", 5, b"x"])
def test_impossible_names(name: Any) -> None:
    with pytest.raises(InvalidOption, match="The task name"):
        task(name=name)(send)


def test_a_name_given_twice() -> None:
    with pytest.raises(InvalidOption, match="names the task twice"):
        task("a", name="b")(send)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue", ""),
        ("queue", None),
        ("queue", "x" * 81),
        ("queue", "a b"),
        ("queue", "mail\n"),
        ("queue", "büro"),
        ("queue", 5),
        ("priority", "high"),
        ("priority", 101),
        ("priority", -101),
        ("priority", 1.0),
        ("priority", True),
        ("retries", -1),
        ("retries", 1.5),
        ("retries", "3"),
        ("retry_exceptions", ValueError),
        ("retry_exceptions", ["ValueError"]),
        ("backoff", -1),
        ("backoff", []),
        ("backoff", float("nan")),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("inf")),
        ("timeout", "5"),
        ("result_ttl", -1),
        ("result_ttl", 1.5),
        ("result_ttl", 2**31),
        ("coalesce", "always"),
        ("atomic", "yes"),
        ("store_result", "no"),
        ("at_most_once", 1),
        ("pool", "fiber"),
    ],
)
def test_an_impossible_option_is_named_with_its_value(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        task(**{option: value})(send)
    assert str(caught.value).startswith(option)
    assert repr(value)[:20].strip("[]") in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    with pytest.raises(
        InvalidOption, match=r"'retires' is not an option of @task. Did you mean 'r"
    ):
        task(retires=3)(send)
    with pytest.raises(InvalidOption, match=r"'colour' is not an option of @task. The options are"):
        task(colour="red")(send)


# --- calls --------------------------------------------------------------------------------------


def test_using_keeps_what_it_was_given(make_task: Make) -> None:
    made = make_task(send)
    slow = made.using(queue="slow").using(priority=3, retries=1)
    assert (slow.call_options.queue, slow.call_options.priority) == ("slow", 3)
    assert made.call_options.queue is None
    assert repr(slow).startswith(f"<{made.name} using ")


def test_using_refuses_options_of_the_function(make_task: Make) -> None:
    with pytest.raises(InvalidOption, match="'atomic' is not an option of a call"):
        make_task(send).using(atomic=False)


def test_a_signature_is_a_value(make_task: Make) -> None:
    made = make_task(send)
    signature = made.using(queue="slow").signature("a@example.org", copies=2)
    assert signature.function is made
    assert (signature.args, signature.kwargs) == (("a@example.org",), {"copies": 2})
    assert signature.options.queue == "slow"


@pytest.mark.parametrize("call", ["x", ("x",), ("x", {}), ((1,), {}, 3), ((1,), None), {"a": 1}])
def test_calls_of_delay_many_that_cannot_be_read(make_task: Make, call: Any) -> None:
    with pytest.raises(InvalidArguments, match="Give each call as"):
        make_task(send).delay_many([call])


@pytest.mark.parametrize("calls", [5, None, send])
def test_delay_many_wants_a_list_of_calls(make_task: Make, calls: Any) -> None:
    with pytest.raises(InvalidArguments, match="which is no list of calls"):
        make_task(send).delay_many(calls)


@pytest.mark.parametrize("args", ["x", b"x", {"a": 1}, 5])
def test_delay_args_wants_a_list(make_task: Make, args: Any) -> None:
    with pytest.raises(InvalidArguments, match="no list of arguments"):
        make_task(send).delay_args(args)


def test_delay_args_wants_a_dict(make_task: Make) -> None:
    with pytest.raises(InvalidArguments, match="no dict of arguments"):
        make_task(send).delay_args((), ["x"])


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("delay", ("x",)), ("delay_args", (("x",),)), ("delay_many", ([(("x",), {})],))],
)
async def test_on_a_loop_the_twin_is_named(make_task: Make, verb: str, arguments: Any) -> None:
    made = make_task(send)
    with pytest.raises(RunningLoop, match=rf"await send\.a{verb}\(…\)"):
        getattr(made, verb)(*arguments)
    with pytest.raises(RunningLoop, match=rf"await send\.a{verb}\(…\)"):
        getattr(made.using(queue="slow"), verb)(*arguments)


async def test_the_historic_delay_names_its_twin(make_task: Make) -> None:
    from cq.models import delay

    with pytest.raises(RunningLoop, match="adelay_args"):
        delay(make_task(send), ("x",))

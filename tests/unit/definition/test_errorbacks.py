"""Errorbacks are remembered by path and found by looking, never by importing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from cq.definition.errorbacks import errorback_entry, resolve_errorback
from cq.errors import InvalidArguments, InvalidTask, TaskNotRegistered


def notify(task: Any, error: Any, *args: Any, **kwargs: Any) -> None: ...


def told(task: Any, error: Any) -> None: ...


def body(cqt: Any, task: Any, error: Any, extra: int = 0) -> None: ...


def keep(value: Any) -> Any:
    return value


def test_a_module_level_function_is_remembered_by_path() -> None:
    entry = errorback_entry(notify, (1, {"a": 2}), {"x": 3})
    assert entry == {"path": f"{__name__}.notify", "args": [1, {"a": 2}], "kwargs": {"x": 3}}
    assert resolve_errorback(f"{__name__}.notify") is notify


def test_a_task_function_is_found_by_its_path(make_task: Callable[..., Any]) -> None:
    made = make_task(body, "mail.problem")
    entry = errorback_entry(made, (1,), {})
    assert entry["path"] == f"{__name__}.body"
    assert resolve_errorback(f"{__name__}.body") is made


@pytest.mark.parametrize(
    "fn", [lambda task, error: None, keep(print), notify.__call__, ModuleType, "os.system", None]
)
def test_what_a_worker_could_not_find_again_is_refused(fn: Any) -> None:
    with pytest.raises(InvalidTask, match="cannot be an errorback"):
        errorback_entry(fn, (), {})


def test_a_nested_function_is_refused() -> None:
    def inner(task: Any, error: Any) -> None: ...

    with pytest.raises(InvalidTask, match="cannot be an errorback"):
        errorback_entry(inner, (), {})


def test_a_call_that_does_not_fit_is_refused_when_it_is_given(
    make_task: Callable[..., Any],
) -> None:
    with pytest.raises(InvalidArguments, match=r"too many positional arguments.*fn\(task, error"):
        errorback_entry(told, (1,), {})
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        errorback_entry(make_task(body), (1, 2), {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {"x": 3}),
        (((1,), {"x": 3}), {}),
        (((1,),), {"x": 3}),
        ((), {"args": (1,), "kwargs": {"x": 3}}),
    ],
)
def test_each_form_of_a_call_means_the_same(args: Any, kwargs: Any) -> None:
    entry = errorback_entry(notify, args, kwargs)
    assert (entry["args"], entry["kwargs"]) == ([1], {"x": 3})


def test_arguments_have_a_limit() -> None:
    with pytest.raises(InvalidArguments, match="the limit is 100"):
        errorback_entry(notify, ("x" * 200,), {}, max_args_bytes=100)


def test_arguments_are_json() -> None:
    with pytest.raises(InvalidArguments, match=r"^args\[0\]: bytes"):
        errorback_entry(notify, (b"x",), {})


@pytest.mark.parametrize(
    "path",
    [
        "this.poem",  # importing it prints: it must not be imported
        "antigravity.webbrowser",
        "os.system",  # not a Python function
        "os.popen.x",
        "json.decoder.JSONDecoder",  # a class
        f"{__name__}.make_task",
        f"{__name__}.nothing",
        f"{__name__}.ModuleType",
        "",
        ".",
        "builtins.eval",
        "nodots",
    ],
)
def test_a_path_is_never_imported(path: str) -> None:
    before = set(sys.modules)
    with pytest.raises(TaskNotRegistered, match="No loaded module defines the errorback"):
        resolve_errorback(path)
    assert set(sys.modules) == before


def test_a_function_counts_only_where_it_was_defined() -> None:
    # errorback_entry lives here by import only.
    with pytest.raises(TaskNotRegistered):
        resolve_errorback(f"{__name__}.errorback_entry")


def test_a_lazy_module_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    monkeypatch.setitem(sys.modules, "no_module", None)  # type: ignore[arg-type]
    for path in ("lazy_module.anything", "no_module.anything"):
        with pytest.raises(TaskNotRegistered):
            resolve_errorback(path)

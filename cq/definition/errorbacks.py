"""
Errorbacks: functions that are told when a task has ended badly.

A function is remembered by its path and found again by looking, never by importing:
a text from a row must not decide what code is loaded.
"""

import sys
from collections.abc import Callable, Mapping
from inspect import isfunction, signature
from typing import Any

from cq.definition.payload import JSON, check_json
from cq.definition.registry import find
from cq.definition.signature import split_call
from cq.errors import InvalidArguments, InvalidTask, TaskNotRegistered


def errorback_entry(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, max_args_bytes: int | None = None
) -> dict[str, JSON]:
    """
    What the row keeps of an errorback: the path and the arguments behind (task, error).

    They may be written as for a subtask, the historic `errorback(fn, (1,), {"x": 2})` included.
    """
    path = getattr(fn, "path", None)
    if path is None:
        path = f"{getattr(fn, '__module__', None)}.{getattr(fn, '__qualname__', None)}"
    if not isinstance(path, str) or _look_up(path) is None:
        raise InvalidTask(
            f"{fn!r} cannot be an errorback. Pass a task function or a function defined at the "
            "top of a module, so that a worker finds it again by its path.",
            given=fn,
        )
    args, kwargs = split_call(args, kwargs)
    _check_call(_look_up(path), path, args, kwargs)
    return {
        "path": path,
        "args": check_json(list(args), "args", max_bytes=max_args_bytes),
        "kwargs": check_json(kwargs, "kwargs", max_bytes=max_args_bytes),
    }


def _check_call(fn: Any, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    called_with = getattr(fn, "call_signature", None) or signature(fn)
    try:
        called_with.bind(None, None, *args, **kwargs)
    except TypeError as problem:
        raise InvalidArguments(
            f"{path} cannot be called as an errorback: {problem}. It is called as "
            "fn(task, error, *args), with cqt in front if it is a task function.",
            name=path,
        ) from None


def resolve_errorback(path: str) -> Any:
    """
    The task function or module-level function behind a path, if its module is loaded.

    Raises TaskNotRegistered otherwise; nothing is imported.
    """
    found = _look_up(path)
    if found is None:
        raise TaskNotRegistered(
            f"No loaded module defines the errorback {path!r}. Define it in the tasks.py of an "
            "installed app, at the top of the module, then restart the workers.",
            name=path,
        )
    return found


def _look_up(path: str) -> Callable[..., Any] | None:
    task_function = find(path)
    if task_function is not None:
        return task_function  # type: ignore[return-value]
    module_name, _, name = path.rpartition(".")
    # From the module's own dict: attribute access may run a module's __getattr__, and import.
    candidate = getattr(sys.modules.get(module_name), "__dict__", {}).get(name)
    if isfunction(candidate) and candidate.__module__ == module_name:
        return candidate
    return None

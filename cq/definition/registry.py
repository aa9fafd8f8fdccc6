"""
The task functions of this process, by name.

A name from a row, a form or a message is looked up here and nowhere else: it never
reaches an import. A function is found under its registered name and its dotted path.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from cq.definition.signature import Signature, TaskFunctionLike
from cq.errors import DuplicateTask, InvalidTask, TaskNotRegistered

_by_name: dict[str, TaskFunctionLike] = {}
_by_path: dict[str, TaskFunctionLike] = {}


def register(function: TaskFunctionLike) -> None:
    """
    Make a task function known under its name and its dotted path.

    A module that is executed again (autoreload) replaces its own functions; any other
    claim to a taken name is a DuplicateTask that shows both places.
    """
    for key in (function.name, function.path):
        other = _by_name.get(key) or _by_path.get(key)
        if other is not None and _place(other) != _place(function):
            raise DuplicateTask(
                f"Two task functions are named {key!r}: {_place(other)} and {_place(function)}. "
                "Names are unique in a project; rename one with @task(name=…).",
                name=key,
            )
    _by_name[function.name] = function
    _by_path[function.path] = function


def unregister(function: TaskFunctionLike) -> None:
    """Forget a task function; for tests that define some on the fly."""
    _by_name.pop(function.name, None)
    _by_path.pop(function.path, None)


def find(name: str) -> TaskFunctionLike | None:
    """The task function of that name or dotted path, if there is one."""
    return _by_name.get(name) or _by_path.get(name)


def lookup(name: str) -> TaskFunctionLike:
    """The task function of that name or dotted path; TaskNotRegistered names the nearest."""
    function = find(name)
    if function is None:
        raise TaskNotRegistered(not_registered(name), name=name)
    return function


def not_registered(name: str) -> str:
    """The sentence for a name that no task function bears."""
    close = difflib.get_close_matches(str(name)[:200], sorted({*_by_name, *_by_path}), n=2)
    nearest = f"The nearest is {' or '.join(map(repr, close))}." if close else "Nothing is near."
    return (
        f"No task is registered as {str(name)[:200]!r}. {nearest} Define it with @task in the "
        "tasks.py of an installed app, then restart the workers."
    )


def names() -> tuple[str, ...]:
    """Every registered name, sorted."""
    return tuple(sorted(_by_name))


def functions() -> tuple[TaskFunctionLike, ...]:
    """Every registered task function, sorted by name."""
    return tuple(_by_name[name] for name in names())


def aliases(function: TaskFunctionLike) -> set[str]:
    """The names under which a row may ask for the function."""
    return {function.name, function.path}


def signature_of(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Signature:
    """
    The signature of a call of anything that names a task function.

    That is the task function itself, what its `using()` returned, a ready signature, a
    registered name, or the plain function that was decorated.
    """
    if isinstance(fn, Signature):
        return Signature(
            fn.function, (*fn.args, *args), {**(fn.kwargs or {}), **kwargs}, fn.options
        )
    if isinstance(fn, str):
        return Signature(lookup(fn), args, kwargs)
    if hasattr(fn, "call_options"):
        return Signature(fn.function, args, kwargs, fn.call_options)
    known = find(f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', '')}")
    if known is None:
        raise InvalidTask(
            f"{fn!r} is not a task function. Decorate it with @task, or pass the name of a "
            "registered one.",
            given=fn,
        )
    return Signature(known, args, kwargs)


def _place(function: TaskFunctionLike) -> str:
    code = getattr(function.body, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "?"
    return f"{function.path} ({where})"

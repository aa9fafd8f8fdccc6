"""
A call that has not happened yet: a task function, its arguments, its options.

`Signature` is what people pass around; `NewTask` is the row it is going to be, with the
id it will have. Both are plain values: nothing here knows a database.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from cq.definition.ids import uuid7
from cq.definition.options import (
    NO_OPTIONS,
    CallOptions,
    TaskOptions,
    seconds_until,
    uuid_of,
)
from cq.definition.payload import JSON, check_json, dumps
from cq.definition.status import Status
from cq.errors import InvalidArguments


class TaskFunctionLike(Protocol):
    """What the rooms below need to know of a task function."""

    name: str
    path: str
    options: TaskOptions
    body: Callable[..., Any]
    is_async: bool
    call_signature: inspect.Signature


@dataclass(frozen=True, slots=True)
class Signature:
    """A task function with arguments, not yet enqueued."""

    function: TaskFunctionLike
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    options: CallOptions = NO_OPTIONS


@dataclass(slots=True, kw_only=True)
class NewTask:
    """A row that is not in the table yet; `args` and `kwargs` are JSON texts."""

    id: UUID
    func_name: str
    args: str
    kwargs: str
    status: Status = Status.QUEUED
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None
    delay: float | None = None
    expires_at: datetime | None = None
    expires_in: float | None = None
    parent: UUID | None = None
    root: UUID | None = None
    previous: UUID | None = None
    depth: int = 0
    previous_result: str | None = None
    pass_result: bool = False
    force_chain: bool = False
    max_retries: int | None = None
    timeout: float | None = None
    at_most_once: bool = False
    result_ttl: int | None = None
    unique_key: str | None = None
    unique_running: bool = False
    errorbacks: list[JSON] | None = None
    owner: str | None = None
    repeating: int | None = None
    tick: datetime | None = None
    missed: int = 0


def new_task(signature: Signature, *, max_args_bytes: int | None = None, extra: int = 0) -> NewTask:
    """
    Plan the row of a signature: checked arguments, merged options, a fresh id.

    Raises InvalidArguments for what JSON cannot carry and for a call that the function
    would not accept, with `extra` arguments to be put in front when it runs. Parent,
    predecessor and root are left to the caller.
    """
    function, call = signature.function, signature.options
    defaults = function.options
    args: Any = check_json(list(signature.args), "args", max_bytes=max_args_bytes)
    kwargs: Any = check_json(dict(signature.kwargs or {}), "kwargs", max_bytes=max_args_bytes)
    check_call(function, args, kwargs, extra=extra)
    args_text, kwargs_text = dumps(args), dumps(kwargs)
    coalesce = defaults.coalesce if call.coalesce is None else call.coalesce
    key = call.unique_key
    if coalesce and key is None:
        key = dumps([args, sorted(kwargs.items())])
    if key is not None:
        key = hashlib.sha256(key.encode()).hexdigest()
    run_after, expires = call.run_after, call.expires
    return NewTask(
        id=uuid7(),
        func_name=function.name,
        args=args_text,
        kwargs=kwargs_text,
        status=Status.QUEUED if call.submit else Status.PENDING,
        queue=call.queue or defaults.queue,
        priority=defaults.priority if call.priority is None else call.priority,
        run_at=run_after if isinstance(run_after, datetime) else None,
        delay=seconds_until(run_after),
        expires_at=expires if isinstance(expires, datetime) else None,
        expires_in=seconds_until(expires),
        parent=uuid_of(call.parent, "parent"),
        previous=uuid_of(call.previous, "previous"),
        force_chain=call.force_chain,
        max_retries=call.retries,
        timeout=call.timeout,
        at_most_once=defaults.at_most_once,
        result_ttl=defaults.result_ttl if call.result_ttl is None else call.result_ttl,
        unique_key=key,
        unique_running=coalesce == "active",
        owner=None if call.owner is None else str(call.owner),
        repeating=call.repeating,
        tick=call.tick,
        missed=call.missed,
    )


def split_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Sort out the ways to write a call: `(f, 1, x=2)`, `(f, (1,), {"x": 2})`, `(f, args=(1,))`.

    JSON arguments are never tuples, so a lone tuple (with an optional dict behind it) is
    the historic list of arguments, and `args=`/`kwargs=` mean the same, also together with
    it: `(f, (1,), kwargs={"x": 2})`.
    """
    first_is_list = bool(args) and isinstance(args[0], tuple)
    if first_is_list and len(args) == 2 and isinstance(args[1], dict) and not kwargs:
        return args[0], args[1]
    if first_is_list and len(args) == 1:
        return args[0], named(kwargs["kwargs"]) if kwargs.keys() == {"kwargs"} else kwargs
    if not args and kwargs and kwargs.keys() <= {"args", "kwargs"}:
        return listed(kwargs.get("args")), named(kwargs.get("kwargs"))
    return args, kwargs


def listed(args: object) -> tuple[Any, ...]:
    """A list of arguments as a tuple; a text, which is a list of letters, is refused."""
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable | None):
        raise InvalidArguments(
            f"args is {args!r:.80}, which is no list of arguments. Write args=(1,), with the "
            "comma, or give the arguments one by one."
        )
    return () if args is None else tuple(args)


def named(kwargs: object) -> dict[str, Any]:
    """Keyword arguments as a dict."""
    if not isinstance(kwargs, Mapping | None):
        raise InvalidArguments(
            f"kwargs is {kwargs!r:.80}, which is no dict of arguments. Write kwargs={{'x': 2}}."
        )
    return dict(kwargs or {})


def check_call(
    function: TaskFunctionLike, args: Iterable[Any], kwargs: Mapping[str, Any], *, extra: int = 0
) -> None:
    """Raise InvalidArguments when the function would not accept the call."""
    problem = call_problem(function, [None] * extra + list(args), kwargs)
    if problem:
        raise InvalidArguments(
            f"{function.name}() cannot be called so: {problem}. "
            f"Its parameters after cqt are {_parameters(function)}.",
            name=function.name,
        )


def accepts(function: TaskFunctionLike, args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the function would accept the call."""
    return call_problem(function, list(args), kwargs) is None


def call_problem(
    function: TaskFunctionLike, args: list[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """What is wrong with a call, or None."""
    try:
        function.call_signature.bind(*args, **kwargs)
    except TypeError as problem:
        return str(problem)
    return None


def _parameters(function: TaskFunctionLike) -> str:
    return str(function.call_signature.replace(return_annotation=inspect.Signature.empty))

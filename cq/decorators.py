"""
`@task`: turns a function into a task function, and the ways to call one.

Calling it runs it in place and returns its value; `delay()` and its kin enqueue it.
Options are checked here, when the module is imported, so that a wrong one never waits
for a worker to find it.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from cq import conf
from cq.aio import in_db, mark_async, refuse_on_loop
from cq.definition import registry
from cq.definition.options import (
    NO_OPTIONS,
    CallOptions,
    Coalesce,
    TaskOptions,
    known,
    unknown_option,
)
from cq.definition.retry_policy import Backoff, Matcher, RetryPolicy
from cq.definition.signature import Signature, listed, named
from cq.errors import InvalidArguments, InvalidOption, InvalidTask
from cq.execution.context import Context
from cq.execution.inline import acall_in_place, call_in_place, run_in_place
from cq.models.task import Task
from cq.workflow.enqueue import enqueue, enqueue_many

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Call = Signature | tuple[Sequence[Any], Mapping[str, Any]]


class Calls(Generic[P]):
    """The ways to enqueue a task function, with the call options that `using()` fixed."""

    function: "TaskFunction[Any, Any]"
    call_options: CallOptions = NO_OPTIONS

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> Task:
        """
        Enqueue a run in the caller's transaction and return its row.

        The id is known at once; workers are rung after the commit. Raises InvalidArguments
        before anything is written, and RunningLoop on an event loop (use `adelay`).
        """
        self._refuse_on_loop("delay")
        return _enqueue(Signature(self.function, args, kwargs, self.call_options))

    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> Task:
        """`delay` for a coroutine; the row is inserted on the thread of the current context."""
        return await in_db(_enqueue, Signature(self.function, args, kwargs, self.call_options))

    def delay_args(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Task:
        """Enqueue with the arguments as a list and a dict, and call options beside them."""
        self._refuse_on_loop("delay_args")
        return _enqueue(self._with_options(args, kwargs, options))

    async def adelay_args(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Task:
        """`delay_args` for a coroutine."""
        return await in_db(_enqueue, self._with_options(args, kwargs, options))

    def delay_many(self, calls: Iterable[Call]) -> list[Task]:
        """
        Enqueue many runs with one INSERT, all or none; return their rows in order.

        Each call is `(args, kwargs)` or a signature, which may be of another function.
        """
        self._refuse_on_loop("delay_many")
        return _enqueue_many(self._signatures_of(calls))

    async def adelay_many(self, calls: Iterable[Call]) -> list[Task]:
        """`delay_many` for a coroutine."""
        return await in_db(_enqueue_many, self._signatures_of(calls))

    def signature(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """The call as a value, for `delay_many`, `subtask` and `chain`."""
        return Signature(self.function, args, kwargs, self.call_options)

    def using(self, **options: Any) -> "Calls[P]":
        """The same task function with call options: `fn.using(queue="low").delay(1)`."""
        return Configured(self.function, self.call_options.merged(**known(options)))

    def _refuse_on_loop(self, verb: str) -> None:
        name = self.function.body.__name__
        refuse_on_loop(f"{self.function.name}.{verb}()", f"'await {name}.a{verb}(…)'")

    def _with_options(self, args: Any, kwargs: Any, options: dict[str, Any]) -> Signature:
        merged = self.call_options.merged(**options)
        return Signature(self.function, listed(args), named(kwargs), merged)

    def _signatures_of(self, calls: Iterable[Call]) -> list[Signature]:
        if isinstance(calls, Iterable):
            return [self._signature_of(call) for call in calls]
        raise InvalidArguments(
            f"delay_many() of {self.function.name} got {calls!r:.200}, which is no list of calls. "
            "Give a list such as [((1,), {}), ((2,), {})]."
        )

    def _signature_of(self, call: Call) -> Signature:
        if isinstance(call, Signature):
            return call
        fits = isinstance(call, tuple) and len(call) == 2 and isinstance(call[1], Mapping)
        if not fits or not isinstance(call[0], list | tuple):
            raise InvalidArguments(
                f"delay_many() of {self.function.name} got {call!r:.200}. Give each call as "
                "(args, kwargs), such as ((1,), {}), or as fn.signature(1)."
            )
        return Signature(self.function, tuple(call[0]), call[1], self.call_options)


class Configured(Calls[P]):
    """A task function with call options."""

    def __init__(self, function: "TaskFunction[P, Any]", call_options: CallOptions) -> None:
        self.function = function
        self.call_options = call_options

    def __repr__(self) -> str:
        return f"<{self.function.name} using {self.call_options}>"


class TaskFunction(Calls[P], Generic[P, R_co]):
    """What `@task` returns: a registered function that can be called or enqueued."""

    def __init__(self, body: Callable[Concatenate[Context, P], R_co], options: TaskOptions) -> None:
        update_wrapper(self, body)
        self.body: Callable[..., Any] = body
        self.options = options
        self.name = options.name
        self.path = f"{body.__module__}.{body.__qualname__}"
        self.is_async = inspect.iscoroutinefunction(body)
        self.call_signature = _after_cqt(body)
        if self.is_async:
            mark_async(self)

    @property
    def function(self) -> "TaskFunction[P, R_co]":  # type: ignore[override]
        """The task function itself, as for one with options."""
        return self

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run in place, with subtasks, chains and errorbacks; no row is written."""
        call: Any = acall_in_place if self.is_async else call_in_place
        value: R_co = call(self, args, kwargs)
        return value

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def delay(
    fn: Any,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    submit: bool = True,
    **options: Any,
) -> Task:
    """Enqueue anything that names a task function; the historic `cq.models.delay`."""
    refuse_on_loop("delay()", "'await fn.adelay_args(args, kwargs)'")
    signature = registry.signature_of(fn, listed(args), named(kwargs))
    merged = signature.options.merged(submit=submit, **options)
    return _enqueue(Signature(signature.function, signature.args, signature.kwargs, merged))


def _enqueue(signature: Signature) -> Task:
    if conf.current().serial:
        return run_in_place(signature)  # type: ignore[return-value]
    return enqueue(signature)


def _enqueue_many(signatures: Sequence[Signature]) -> list[Task]:
    if conf.current().serial:
        return [run_in_place(signature) for signature in signatures]  # type: ignore[misc]
    return enqueue_many(signatures)


class Decorator(Protocol):
    """What `@task(…)` with options returns: it keeps the parameters behind `cqt`."""

    def __call__(self, body: Callable[Concatenate[Context, P], R], /) -> TaskFunction[P, R]:
        """Make the task function."""
        ...


@overload
def task(function: Callable[Concatenate[Context, P], R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    name: str | None = None,
    *,
    queue: str = ...,
    priority: int = ...,
    retries: int = ...,
    retry_exceptions: Iterable[Matcher] | None = ...,
    backoff: Backoff = ...,
    timeout: float | None = ...,
    atomic: bool | None = ...,
    coalesce: Coalesce = ...,
    result_ttl: int | None = ...,
    store_result: bool = ...,
    at_most_once: bool = ...,
    pool: Literal["thread", "process"] = ...,
) -> Decorator: ...
def task(function: Any = None, /, **options: Any) -> Any:
    """
    Make a task function of `def` or `async def`; its first parameter is `cqt`.

    Options: name, queue, priority (-100…100), retries, retry_exceptions (classes or
    predicates), backoff (seconds, a list of them, or None for exponential), timeout
    (seconds), atomic, coalesce (False, True, "active"), result_ttl (seconds),
    store_result, at_most_once, pool ("thread" or "process"). See docs/reference/options.md.
    """
    if callable(function):
        return _register(function, options)
    if function is not None and "name" in options:
        raise InvalidOption(
            f"@task({function!r}, name={options['name']!r}) names the task twice. Leave one out."
        )
    if function is not None:
        options = {"name": function, **options}
    return partial(_register, options=options)


def _register(body: Any, options: dict[str, Any]) -> TaskFunction[Any, Any]:
    _check_body(body)
    for name in options:
        if name not in _TASK_OPTIONS:
            raise InvalidOption(unknown_option(name, _TASK_OPTIONS, "@task"), option=name)
    made: TaskFunction[Any, Any] = TaskFunction(body, _options_of(body, **options))
    registry.register(made)
    return made


def _options_of(
    body: Any,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_exceptions: Iterable[Matcher] | None = None,
    backoff: Backoff = None,
    atomic: bool | None = None,
    **others: Any,
) -> TaskOptions:
    is_async = inspect.iscoroutinefunction(body)
    if is_async and atomic:
        raise InvalidTask(
            f"{body.__qualname__} is an async def with atomic=True, but Django has no async "
            "transactions. Leave atomic out and end the body with: "
            "return await cqt.commit(fn), which commits fn's writes with the completion."
        )
    return TaskOptions(
        name=name if name is not None else f"{body.__module__}.{body.__qualname__}",
        retry=RetryPolicy.build(retries, retry_exceptions, backoff),
        atomic=not is_async if atomic is None else atomic,
        **others,
    )


_RETRY_OPTIONS = {"retries", "retry_exceptions", "backoff"}
_TASK_OPTIONS = {field.name for field in fields(TaskOptions)} - {"retry"} | _RETRY_OPTIONS


def _check_body(body: Any) -> None:
    place = getattr(body, "__qualname__", repr(body))
    if not isinstance(body, FunctionType):
        raise InvalidTask(f"{body!r} is not a function. Put @task on a def or async def.")
    code = body.__code__
    if "." in place or body.__name__ == "<lambda>":
        raise InvalidTask(
            f"{place} ({code.co_filename}:{code.co_firstlineno}) is not at the top of a module, "
            "so no worker could find it. Define task functions at module level, in a tasks.py."
        )
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidTask(
            f"{place} is a generator, which has no single result. Return a value; report what "
            "happens on the way with cqt.log() and cqt.progress()."
        )
    parameters = list(inspect.signature(body).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise InvalidTask(
            f"{place} takes no first parameter for its context. Write def {body.__name__}(cqt, …)."
        )


def _after_cqt(body: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(body)
    return signature.replace(parameters=list(signature.parameters.values())[1:])

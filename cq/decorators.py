"""
`@task`: turns a function into a task function, and the ways to call one.

Calling it runs it in place and returns its value; `delay()` and its kin enqueue it.
Options are checked here, when the module is imported, so that a wrong one never waits
for a worker to find it.
"""

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from cq import conf
from cq.aio import in_db, on_running_loop
from cq.definition import registry
from cq.definition.options import NO_OPTIONS, CallOptions, Coalesce, TaskOptions, known
from cq.definition.retry_policy import Backoff, Matcher, RetryPolicy
from cq.definition.signature import Signature
from cq.errors import InvalidArguments, InvalidTask, RunningLoop
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

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """
        Enqueue a run in the caller's transaction and return its row.

        The id is known at once; workers are rung after the commit. Raises InvalidArguments
        before anything is written, and RunningLoop on an event loop (use `adelay`).
        """
        _refuse_on_loop(f"{self.function.name}.delay()", f"await {self.function.name}.adelay()")
        return _enqueue(Signature(self.function, args, kwargs, self.call_options))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """`delay` for a coroutine; the row is inserted on the thread of the current context."""
        return await in_db(_enqueue, Signature(self.function, args, kwargs, self.call_options))

    def delay_args(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Task:
        """Enqueue with the arguments as a list and a dict, and call options beside them."""
        _refuse_on_loop(f"{self.function.name}.delay_args()", "await fn.using(…).adelay(…)")
        merged = self.call_options.merged(**options)
        return _enqueue(Signature(self.function, tuple(args), dict(kwargs or {}), merged))

    def delay_many(self, calls: Iterable[Call]) -> list[Task]:
        """
        Enqueue many runs with one INSERT, all or none; return their rows in order.

        Each call is `(args, kwargs)` or a signature, which may be of another function.
        """
        _refuse_on_loop(f"{self.function.name}.delay_many()", "await fn.adelay_many(…)")
        return _enqueue_many([self._signature_of(call) for call in calls])

    async def adelay_many(self, calls: Iterable[Call]) -> list[Task]:
        """`delay_many` for a coroutine."""
        return await in_db(_enqueue_many, [self._signature_of(call) for call in calls])

    def signature(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """The call as a value, for `delay_many`, `subtask` and `chain`."""
        return Signature(self.function, args, kwargs, self.call_options)

    def using(self, **options: Any) -> "Calls[P]":
        """The same task function with call options: `fn.using(queue="low").delay(1)`."""
        return Configured(self.function, self.call_options.merged(**known(options)))

    def _signature_of(self, call: Call) -> Signature:
        if isinstance(call, Signature):
            return call
        fits = isinstance(call, tuple) and len(call) == 2 and isinstance(call[1], Mapping)
        if not fits or not isinstance(call[0], list | tuple):
            raise InvalidArguments(
                f"delay_many() of {self.function.name} got {call!r}. Give each call as "
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
        update_wrapper(self, body)  # type: ignore[arg-type]
        self.body: Callable[..., Any] = body
        self.options = options
        self.name = options.name
        self.path = f"{body.__module__}.{body.__qualname__}"
        self.is_async = inspect.iscoroutinefunction(body)
        self.call_signature = _after_cqt(body)

    @property
    def function(self) -> "TaskFunction[P, R_co]":  # type: ignore[override]
        """The task function itself, as for one with options."""
        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run in place, with subtasks, chains and errorbacks; no row is written."""
        signature = Signature(self, args, kwargs)
        if self.is_async:
            return acall_in_place(signature)  # type: ignore[return-value]
        value: R_co = call_in_place(signature)
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
    _refuse_on_loop("delay()", "await fn.adelay()")
    signature = registry.signature_of(fn, tuple(args), dict(kwargs or {}))
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


@overload
def task(
    function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
) -> TaskFunction[P, Coroutine[Any, Any, R]]: ...
@overload
def task(function: Callable[Concatenate[Context, P], R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    name: str | None = None,
    /,
    **options: Any,
) -> Callable[[Callable[Concatenate[Context, P], R]], TaskFunction[P, R]]: ...
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
    if function is not None:
        options = {"name": function, **options}
    return lambda body: _register(body, options)


def _register(body: Any, options: dict[str, Any]) -> TaskFunction[Any, Any]:
    _check_body(body)
    made: TaskFunction[Any, Any] = TaskFunction(body, _options_of(body, **options))
    registry.register(made)
    return made


def _options_of(
    body: Any,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    retries: int = 0,
    retry_exceptions: Iterable[Matcher] | None = None,
    backoff: Backoff = None,
    timeout: float | None = None,
    atomic: bool | None = None,
    coalesce: Coalesce = False,
    result_ttl: int | None = None,
    store_result: bool = True,
    at_most_once: bool = False,
    pool: Literal["thread", "process"] = "thread",
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
        queue=queue,
        priority=priority,
        retry=RetryPolicy.build(retries, retry_exceptions, backoff),
        timeout=timeout,
        atomic=not is_async if atomic is None else bool(atomic),
        coalesce=coalesce,
        result_ttl=result_ttl,
        store_result=store_result,
        at_most_once=at_most_once,
        pool=pool,
    )


def _check_body(body: Any) -> None:
    place = getattr(body, "__qualname__", repr(body))
    if not isinstance(body, FunctionType):
        raise InvalidTask(f"{body!r} is not a function. Put @task on a def or async def.")
    if body.__name__ == "<lambda>" or "<locals>" in place:
        raise InvalidTask(
            f"{place} is not at the top of a module, so no worker could find it. Define task "
            "functions at module level, in a tasks.py."
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


def _refuse_on_loop(called: str, instead: str) -> None:
    if on_running_loop():
        raise RunningLoop(
            f"{called} was called on a running event loop, which it would block. "
            f"Write {instead} instead."
        )

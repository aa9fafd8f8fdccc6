"""
Links of a chain: what runs after a task, and whether it is handed the result.

The question is settled when `chain()` is called, with the function's own signature, so
that a link which cannot be called is an error there and not in a worker a day later.
"""

from dataclasses import replace
from typing import Any

from cq.definition.registry import signature_of
from cq.definition.signature import NewTask, accepts, new_task, split_call

_CHAIN_OPTIONS = ("force_chain", "pass_result", "result_ttl")


def plan_link(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, max_args_bytes: int
) -> NewTask:
    """
    Plan the row of `chain(fn, *args, **kwargs)`, without its predecessor.

    The predecessor's result is passed first when the function can take it together with
    the arguments given; `pass_result=True` or `False` decides explicitly.
    """
    options = {name: kwargs.pop(name) for name in _CHAIN_OPTIONS if name in kwargs}
    signature = signature_of(fn, *split_call(args, kwargs))
    signature = replace(signature, options=signature.options.merged(**options))
    passes = signature.options.pass_result
    if passes is None:
        passes = accepts(signature.function, [None, *signature.args], signature.kwargs or {})
    task = new_task(signature, max_args_bytes=max_args_bytes, extra=1 if passes else 0)
    task.pass_result = passes
    return task


def plan_subtask(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, max_args_bytes: int
) -> NewTask:
    """Plan the row of `subtask(fn, *args, **kwargs)`, without its parent."""
    signature = signature_of(fn, *split_call(args, kwargs))
    return new_task(signature, max_args_bytes=max_args_bytes)

"""
Links of a chain: what runs after a task, and whether it is handed the result.

The question is settled when `chain()` is called, with the function's own signature, so
that a link which cannot be called is an error there and not in a worker a day later.
"""

from typing import Any

from cq.definition.payload import check_json
from cq.definition.registry import signature_of
from cq.definition.signature import NewTask, accepts, new_task, split_call
from cq.errors import InvalidOption

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
    plain_args, plain_kwargs = split_call(args, kwargs)
    signature = signature_of(fn, plain_args, plain_kwargs)
    wish = options.pop("pass_result", signature.options.pass_result)
    if wish not in (None, True, False):
        raise InvalidOption(
            f"pass_result is {wish!r}, which is not True or False. Leave it out to pass the "
            "result whenever the function can take it."
        )
    if wish is None:
        listed = check_json([None, *signature.args], "args")
        wish = accepts(signature.function, listed, signature.kwargs or {})  # type: ignore[arg-type]
    changed = signature.options.merged(**options)
    task = new_task(
        type(signature)(signature.function, signature.args, signature.kwargs, changed),
        max_args_bytes=max_args_bytes,
        extra=1 if wish else 0,
    )
    task.pass_result = wish
    return task


def plan_subtask(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, max_args_bytes: int
) -> NewTask:
    """Plan the row of `subtask(fn, *args, **kwargs)`, without its parent."""
    plain_args, plain_kwargs = split_call(args, kwargs)
    return new_task(signature_of(fn, plain_args, plain_kwargs), max_args_bytes=max_args_bytes)

"""
Calling an errorback: a task function with the caller's cqt, any other function as it is.
"""

from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from django.db import transaction

from cq.aio import from_sync
from cq.definition.errorbacks import resolve_errorback
from cq.models.queries import database


def call_errorback(cqt: Any, task: Any, error: str | None, entry: dict[str, Any]) -> None:
    """
    Call `fn(task, error, *args, **kwargs)`, looked up by its path among loaded modules.

    A task function gets `cqt` in front, and one transaction for its writes if it is atomic.
    An async function is awaited.
    """
    fn = resolve_errorback(entry["path"])
    call = partial(fn, task, error)
    is_atomic = False
    if hasattr(fn, "body"):
        call = partial(fn.body, cqt, task, error)
        is_atomic = fn.options.atomic and not fn.is_async
    if iscoroutinefunction(call.func):
        from_sync(call)(*entry["args"], **entry["kwargs"])
    elif is_atomic:
        with transaction.atomic(using=database()):
            call(*entry["args"], **entry["kwargs"])
    else:
        call(*entry["args"], **entry["kwargs"])

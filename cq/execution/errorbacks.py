"""
Calling an errorback: a task function with the caller's cqt, any other function as it is.
"""

from typing import Any

from cq.aio import from_sync
from cq.definition.errorbacks import resolve_errorback


def call_errorback(cqt: Any, task: Any, error: str | None, entry: dict[str, Any]) -> None:
    """
    Call `fn(task, error, *args, **kwargs)`, looked up by its path among loaded modules.

    A task function gets `cqt` in front, and is awaited if it is async.
    """
    fn = resolve_errorback(entry["path"])
    args, kwargs = entry["args"], entry["kwargs"]
    if not hasattr(fn, "body"):
        fn(task, error, *args, **kwargs)
        return
    body = from_sync(fn.body) if fn.is_async else fn.body
    body(cqt, task, error, *args, **kwargs)

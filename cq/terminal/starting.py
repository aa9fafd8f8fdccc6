"""
Starting a task from a terminal: a name and its arguments, as text.

Enters: what a person typed. Leaves: the task function and the values it is called with, or
CQError with one sentence. Only registered names can be typed, and only JSON can be given.
"""

import json
from typing import Any

from cq.definition import registry
from cq.definition.signature import TaskFunctionLike
from cq.errors import CQError
from cq.terminal.text import one_line


def function_named(name: str) -> TaskFunctionLike:
    """Return the task function of a name, or of its last part where only one ends so."""
    if registry.find(name) is not None:
        return registry.lookup(name)
    alike = [full for full in registry.names() if full.endswith(f".{name}")]
    if len(alike) > 1:
        raise CQError(
            f"{one_line(name)!r} stands for several tasks: {', '.join(alike)}. Expected one of "
            "them. Write its whole name."
        )
    return registry.lookup(alike[0] if alike else one_line(name))


def arguments_of(texts: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Read arguments, each a JSON value; an object that comes last holds those with a name."""
    values = []
    for text in texts:
        try:
            values.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise CQError(
                f"{one_line(text, 80)!r} is not JSON. Expected a value such as 1, [1, 2] or "
                '{"page": 1}. Put a text into double quotes, inside those of the shell.'
            ) from error
    kwargs = values.pop() if values and isinstance(values[-1], dict) else {}
    return values, kwargs

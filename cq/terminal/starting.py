"""
Starting a task from a terminal: a name and its arguments, as text.

Enters: what a person typed. Leaves: the task function and the values it is called with, or
CQError with one sentence. Only registered names can be typed, and only JSON can be given.
What nobody shall see in a list of processes or in a shell's history comes from a file or
from standard input, and no sentence repeats it.
"""

import json
import sys
from pathlib import Path
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
    """
    Read arguments, each a JSON value; an object that comes last holds those with a name.

    A text `@PATH` stands for the JSON of a file, and `-` for that of standard input.
    """
    values = []
    for text in texts:
        place, source = _source(text)
        try:
            values.append(json.loads(source))
        except (ValueError, RecursionError) as error:
            raise CQError(
                f"{place} is not JSON. Expected a value such as 1, [1, 2] or "
                '{"page": 1}. Put a text into double quotes, inside those of the shell.'
            ) from error
    kwargs = values.pop() if values and isinstance(values[-1], dict) else {}
    return values, kwargs


def _source(text: str) -> tuple[str, str]:
    """Where an argument comes from, in words, and its JSON."""
    if text == "-":
        return "Standard input", sys.stdin.read()
    if not text.startswith("@"):
        return repr(one_line(text, 80)), text
    try:
        return f"The file {one_line(text[1:])!r}", Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CQError(
            f"The file {one_line(text[1:])!r} cannot be read: {reason}. Expected a file that "
            "holds one JSON value. Correct the path behind the @."
        ) from error

"""
An exception in words, fit to be stored and shown to staff.

A live exception enters; its type, message and traceback leave as three texts of bounded
size, with causes, groups and notes, without local variables and without credentials.
"""

import textwrap
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from cq.definition.text import safe_text, text_of

_FRAMES = 40
_LINKS = 16
_GROUP_DEPTH = 4
_EXCEPTIONS = 64
_TYPE_BYTES = 200
_MORE = "More exceptions are not shown.\n"
_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe_exception(exc: BaseException, limit: int) -> dict[str, Any]:
    """
    Return the type, message and traceback of an exception, together at most `limit` bytes.

    Never raises, whatever the exception's own methods do, and its cost is bounded by the
    limit however long the message, the stack or the chain of causes is.
    """
    try:
        kind = safe_text(_type_name(exc), min(_TYPE_BYTES, limit))
        message = safe_text(text_of(exc), (limit - len(kind)) // 4)
        room = limit - len(kind.encode()) - len(message.encode())
        return {"type": kind, "message": message, "traceback": _traceback(exc, room)}
    except BaseException:  # noqa: BLE001 - the attempt must end with what is left: its type
        return {"type": type(exc).__name__[: max(limit, 0) // 4], "message": "", "traceback": ""}


def _traceback(exc: BaseException, limit: int) -> str:
    try:
        return safe_text("".join(_Report(limit).lines(exc)), limit)
    except BaseException:  # noqa: BLE001 - a hostile __cause__ or exceptions attribute loses its traceback
        return safe_text("The traceback of this exception cannot be read.", limit)


def _type_name(exc: BaseException) -> str:
    kind = type(exc)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


class _Report:
    """One traceback in the making; it holds the limits that all its parts share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit // 4
        self.left = _EXCEPTIONS

    def lines(self, exc: BaseException, depth: int = 0) -> Iterator[str]:
        """Yield an exception after those it came from, as Python prints them."""
        for joint, link in _chain(exc):
            if self.left == 0:
                yield _MORE
                return
            self.left -= 1
            yield joint
            yield from _stack(link.__traceback__)
            yield f"{_type_name(link)}: {safe_text(text_of(link), self.limit)}\n"
            for note in list(getattr(link, "__notes__", ()))[:_LINKS]:
                yield f"{safe_text(text_of(note), self.limit)}\n"
            if isinstance(link, BaseExceptionGroup) and depth < _GROUP_DEPTH:
                yield from self._members(link.exceptions, depth + 1)

    def _members(self, members: tuple[BaseException, ...], depth: int) -> Iterator[str]:
        for number, member in enumerate(members, 1):
            if self.left == 0:
                yield f"  {_MORE}"
                return
            yield f"  --- {number} of {len(members)} ---\n"
            for line in self.lines(member, depth):
                yield textwrap.indent(line, "  ")


def _chain(exc: BaseException) -> list[tuple[str, BaseException]]:
    """Return the exception after its causes, each with the words that join it on."""
    links: list[tuple[str, BaseException]] = []
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(links) < _LINKS:
        seen.add(id(current))
        before, joint = current.__cause__, _CAUSED
        if before is None and not current.__suppress_context__:
            before, joint = current.__context__, _DURING
        links.append((joint, current))
        current = before
    links[-1] = ("", links[-1][1])
    return links[::-1]


def _stack(frames: TracebackType | None) -> Iterator[str]:
    """Yield the innermost frames with their source line and never a local variable."""
    if frames is None:
        return
    yield "Traceback (most recent call last):\n"
    hidden = sum(1 for _ in traceback.walk_tb(frames)) - _FRAMES
    if hidden > 0:
        yield f"  [... {hidden} outer frames not shown ...]\n"
    try:
        summary = traceback.StackSummary.extract(traceback.walk_tb(frames), limit=-_FRAMES)
        yield from summary.format()
    except Exception:  # noqa: BLE001 - a module's own loader may raise while its source is read
        yield "  The frames cannot be read.\n"

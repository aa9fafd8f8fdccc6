"""
What a task is given and what it returns, as plain JSON.

Any Python value enters; what leaves is a copy made of dict, list, str, int, float, bool
and None alone, which every database gives back unchanged, or an error that names the
path of the culprit and what to pass instead. `delay()` runs this on every call, so plain
small values must cost next to nothing.
"""

import json
import re
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    Set,
    ValuesView,
)
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from io import IOBase
from math import isfinite
from os import PathLike
from types import FunctionType
from typing import Any, TypeAlias
from uuid import UUID

from cq.definition.failure import describe_exception
from cq.definition.text import MASK, UNSTORABLE, clean_text, is_sensitive, mask_url
from cq.errors import CQError, InvalidArguments

__all__ = [
    "JSON",
    "check_json",
    "clean_text",
    "describe_exception",
    "dumps",
    "mask",
]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_STORABLE_BYTES = 2**28 - 1  # no element of PostgreSQL's jsonb is larger
_MAX_INTEGER = 2**63 - 1
_MIN_INTEGER = -(2**63)
_LARGE_FLOAT = 1e16  # from here on repr() writes an exponent
_STRING_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e\+\d+')
_HOLDS = " JSON holds text, numbers, true, false, null, lists, and dicts whose keys are text."
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,79}\Z", re.ASCII)

_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def check_json(
    value: object,
    where: str,
    *,
    max_bytes: int | None = None,
    max_depth: int = 64,
    error: type[CQError] = InvalidArguments,
) -> JSON:
    """
    Return a plain copy of a value, or raise an error that names the path of the culprit.

    Mappings become dicts, lists and tuples become lists, subclasses of str, int and float
    become what they derive from. `where` is the root of the path ("args", "result").
    Nothing of a value beyond the limits is copied for long: shared and endless structures
    are refused as soon as their size is certain.
    """
    meter = _Meter(_STORABLE_BYTES if max_bytes is None else max_bytes)
    try:
        copy = _COPIERS.get(type(value), _copy_other)(value, max_depth, meter)
        if 6 * meter.characters + 28 * meter.values > meter.limit:
            _refuse_oversize(copy, meter.limit)
    except _Refused as refused:
        raise refused.as_error(error, where) from None
    except Exception as exc:  # the items() of a user's mapping runs here
        raise error(
            f"{where}: {type(exc).__name__} while it was read. A mapping must list its items; "
            "pass a plain dict.",
            path=where,
        ) from exc
    return copy


def dumps(value: JSON) -> str:
    """
    Return checked JSON as compact text for a column.

    Large floats are written out in digits: jsonb keeps no exponent and would give back
    the integer 10000000000000000 for 1e16.
    """
    text = _encode(value)
    return _STRING_OR_LARGE_FLOAT.sub(_write_out, text) if "e+" in text else text


def mask(value: JSON, sensitive: Collection[str] = (), *, max_depth: int = 64) -> JSON:
    """
    Return a copy of arguments or a result that may be shown to people.

    Values under a sensitive key become "***", passwords inside URLs as well, and what
    lies deeper than `max_depth` (only a row written by plain SQL can) becomes "...".
    """
    if isinstance(value, str):
        return mask_url(value)
    if not isinstance(value, dict | list):
        return value
    if max_depth == 0:
        return "..."
    deeper = max_depth - 1
    if isinstance(value, list):
        return [mask(item, sensitive, max_depth=deeper) for item in value]
    return {
        key: MASK if is_sensitive(key, sensitive) else mask(item, sensitive, max_depth=deeper)
        for key, item in value.items()
    }


class _Meter:
    """Counts what a copy holds: enough to know its size in bytes within a small factor."""

    __slots__ = ("characters", "limit", "values")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.characters = 0
        self.values = 1

    def add_values(self, count: int) -> None:
        """Count the members of a container, and stop a structure that explodes."""
        self.values += count
        if self.values > self.limit:
            raise _OversizeWhole(f"more than {self.limit:,} bytes, which is the limit")


class _Refused(Exception):
    """A value that JSON cannot carry; each container on the way out adds its step."""

    expectation = _HOLDS

    def __init__(self, what: str, instead: str, *, at_key: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.instead = instead
        self.at_key = at_key
        self.steps: list[str | int] = []

    def step(self, step: str | int) -> None:
        """Note where the culprit is; a bad key is reported at its dict."""
        if self.at_key:
            self.at_key = False
        else:
            self.steps.append(step)

    def as_error(self, error: type[CQError], where: str) -> CQError:
        """Return the sentence a caller reads, with the path as a fact."""
        path, name = where, where
        for step in reversed(self.steps):
            if isinstance(step, int):
                path += f"[{step}]"
            elif _IDENTIFIER.match(step):
                path, name = f"{path}.{step}", step
            else:
                path += f"[{clean_text(ascii(step), 80)}]"
        if not self.steps or isinstance(self.steps[0], int):
            name = self.what.partition(" ")[0].lower()
        path = clean_text(path, 400)
        instead = self.instead.replace("NAME", name)
        return error(f"{path}: {self.what}; {instead}.{self.expectation}", path=path)


class _Oversize(_Refused):
    """The whole is too large, or a branch too deep: no type is at fault."""

    expectation = ""

    def __init__(self, what: str) -> None:
        super().__init__(what, "store the data and pass its id")


class _OversizeWhole(_Oversize):
    """The size of the whole; the place where counting stopped says nothing."""

    def step(self, step: str | int) -> None:
        """Stay at the root."""


def _copy_list(value: list[Any] | tuple[Any, ...], room: int, meter: _Meter) -> list[JSON]:
    if not room:
        raise _Oversize("nested too deep")
    meter.add_values(len(value))
    copy: list[JSON] = []
    room -= 1
    try:
        for item in value:
            copy.append(_COPIERS.get(type(item), _copy_other)(item, room, meter))
    except _Refused as refused:
        refused.step(len(copy))
        raise
    return copy


def _copy_dict(value: Mapping[Any, Any], room: int, meter: _Meter) -> dict[str, JSON]:
    if not room:
        raise _Oversize("nested too deep")
    meter.add_values(len(value))
    copy: dict[str, JSON] = {}
    room -= 1
    key: Any = None
    try:
        for key, item in value.items():
            plain = _plain_key(key, meter)
            if plain in copy:
                raise _Refused(f"two keys that both read {plain!a}", "rename one", at_key=True)
            copy[plain] = _COPIERS.get(type(item), _copy_other)(item, room, meter)
    except _Refused as refused:
        refused.step(key)
        raise
    return copy


def _plain_key(key: object, meter: _Meter) -> str:
    if not issubclass(type(key), str):
        raise _Refused(f"a key of type {type(key).__name__}", "pass str(key)", at_key=True)
    try:
        return _copy_text(str.__str__(key), 0, meter)
    except _Refused as refused:
        raise _Refused(f"a key that is {refused.what}", refused.instead, at_key=True) from None


def _copy_text(text: str, room: int, meter: _Meter) -> str:
    meter.characters += len(text)
    if meter.characters > 4 * meter.limit:
        raise _OversizeWhole(f"more than {meter.limit:,} bytes, which is the limit")
    if (not text.isascii() or "\0" in text) and (found := UNSTORABLE.search(text)):
        place = f"at index {found.start()}"
        if found[0] == "\0":
            raise _Refused(f"text with a NUL {place}", "remove it: value.replace(chr(0), '')")
        raise _Refused(
            f"text with a lone surrogate {place}",
            "decode it with errors='replace', or remove the character",
        )
    return text


def _copy_integer(number: int, room: int, meter: _Meter) -> int:
    if _MIN_INTEGER <= number <= _MAX_INTEGER:
        return number
    raise _Refused(
        f"int of {number.bit_length()} bits, more than a signed 64-bit integer", "pass str(value)"
    )


def _copy_float(number: float, room: int, meter: _Meter) -> float:
    if not isfinite(number):
        raise _Refused(f"float {number!r}", "pass None, or a text such as str(value)")
    if not -_LARGE_FLOAT < number < _LARGE_FLOAT:
        meter.values += 12  # the digits that dumps() writes out
    return number


def _copy_same(value: Any, room: int, meter: _Meter) -> Any:
    return value


def _copy_other(value: Any, room: int, meter: _Meter) -> JSON:
    """Copy subclasses of the plain types and other mappings; refuse everything else."""
    kind = type(value)
    if issubclass(kind, str):
        return _copy_text(str.__str__(value), room, meter)
    if issubclass(kind, int):
        return _copy_integer(int.__int__(value), room, meter)
    if issubclass(kind, float):
        return _copy_float(float.__float__(value), room, meter)
    if issubclass(kind, list | tuple):
        return _copy_list(value, room, meter)
    # A QueryDict would keep only the last of several values, without a word.
    if issubclass(kind, Mapping) and not hasattr(kind, "getlist"):
        return _copy_dict(value, room, meter)
    raise _Refused(*_advice(kind))


_COPIERS: dict[type, Callable[[Any, int, _Meter], JSON]] = {
    str: _copy_text,
    int: _copy_integer,
    float: _copy_float,
    bool: _copy_same,
    type(None): _copy_same,
    list: _copy_list,
    tuple: _copy_list,
    dict: _copy_dict,
}

_ADVICE: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), "store it and pass its name, or pass base64 text"),
    ((timedelta,), "pass value.total_seconds()"),
    ((date, time, UUID, Decimal, PathLike), "pass str(value)"),
    ((Enum,), "pass value.value"),
    ((Set, KeysView), "pass sorted(value)"),
    ((Awaitable,), "await it and pass what it returns"),
    ((IOBase,), "store the file and pass its name"),
    ((range, deque, Iterator, ValuesView, ItemsView), "pass list(value)"),
    ((BaseException,), "pass str(value)"),
    ((FunctionType, type), "pass its name"),
)


def _advice(kind: type) -> tuple[str, str]:
    """Return what came and what to pass instead, without touching the value itself."""
    instead = getattr(kind, "instead_of_json", None)
    return (kind.__name__, instead) if isinstance(instead, str) else _advice_by_marks(kind)


def _advice_by_marks(kind: type) -> tuple[str, str]:
    name = kind.__name__
    if hasattr(kind, "_meta") and hasattr(kind, "pk"):
        return f"{name} instance", "pass NAME.pk"
    if hasattr(kind, "values_list"):
        return name, "pass list(value.values_list('pk', flat=True))"
    if hasattr(kind, "getlist"):
        return name, "pass value.dict(), or dict(value.lists()) to keep every value"
    if name == "__proxy__":
        return "lazy text", "pass str(value)"
    if hasattr(kind, "_setup") and hasattr(kind, "_wrapped"):
        return f"{name} instance", "pass what it stands for, such as NAME.pk"
    for kinds, advice in _ADVICE:
        if issubclass(kind, kinds):
            return name, advice
    if hasattr(kind, "__dataclass_fields__"):
        return f"{name} instance", "pass dataclasses.asdict(value)"
    if hasattr(kind, "tolist"):
        return name, "pass value.tolist()"
    return f"{name} instance", "pass its id, or its fields as a dict"


def _refuse_oversize(copy: JSON, limit: int) -> None:
    size = len(dumps(copy).encode())
    if size > limit:
        raise _OversizeWhole(f"{size:,} bytes, the limit is {limit:,}")


def _write_out(found: re.Match[str]) -> str:
    token = found[0]
    return token if token[0] == '"' else f"{float(token):.1f}"

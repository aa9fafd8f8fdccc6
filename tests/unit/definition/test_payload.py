"""Arguments and results: what is stored as it came, what is refused, and with which words."""

import asyncio
import io
import json
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.http import QueryDict
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings
from hypothesis import strategies as st

from cq.definition.payload import check_json, dumps, mask
from cq.errors import InvalidArguments, UnfitResult

INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 2


class Plain(Enum):
    A = 1


class Ratio(float):
    """Like the floats of numpy: a subclass with another repr."""

    def __repr__(self) -> str:
        return "Ratio()"


class User:
    """Looks like a Django model: it has `_meta` and a primary key."""

    _meta = SimpleNamespace()
    pk = 7


class QuerySet:
    values_list = None


class Array:
    """Looks like a numpy array."""

    def tolist(self) -> list[int]:
        return [1]


@dataclass
class Point:
    x: int


class Twin(str):
    """A key that hides from its equal: plain copies of two would collide."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


async def coroutine() -> None: ...


def refusal(value: Any, where: str = "args", **limits: Any) -> str:
    with pytest.raises(InvalidArguments) as caught:
        check_json(value, where, **limits)
    return str(caught.value)


@given(VALUES)
@settings(max_examples=150)
def test_json_comes_back_from_its_column_unchanged(value: Any) -> None:
    copy = check_json(value, "args")
    assert copy == value
    assert repr(json.loads(dumps(copy))) == repr(value)


@given(VALUES)
@settings(max_examples=50)
def test_the_limit_is_the_size_of_the_column_in_bytes(value: Any) -> None:
    size = len(dumps(value).encode())
    check_json(value, "args", max_bytes=size)
    with pytest.raises(InvalidArguments, match="bytes"):
        check_json(value, "args", max_bytes=size - 1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (namedtuple("Pair", "a b")(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        (UserDict(a=1), {"a": 1}),
        (Colour.RED, "red"),
        (Level.HIGH, 2),
        (Ratio(0.5), 0.5),
        (mark_safe("<b>"), "<b>"),
        ({Colour.RED: 1}, {"red": 1}),
        (True, True),
    ],
)
def test_what_derives_from_a_plain_type_becomes_plain(value: Any, plain: Any) -> None:
    copy = check_json(value, "args")
    assert copy == plain
    assert type(copy) is type(plain)
    if isinstance(copy, dict):
        assert all(type(key) is str for key in copy)


def test_the_copy_shares_no_container_with_the_original() -> None:
    inner = [1]
    copy = check_json({"inner": inner}, "kwargs")
    inner.append(2)
    assert copy == {"inner": [1]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, {"user": User()}], "args[1].user: User instance; pass user.pk. JSON holds text,"),
        ([User()], "args[0]: User instance; pass user.pk."),
        (User(), "args: User instance; pass user.pk."),
        (
            [SimpleLazyObject(User)],
            "args[0]: SimpleLazyObject instance; pass what it stands for, such as "
            "simplelazyobject.pk.",
        ),
        ([QuerySet()], "args[0]: QuerySet; pass list(value.values_list('pk', flat=True))."),
        ([QueryDict("a=1&a=2")], "args[0]: QueryDict; pass value.dict(), or dict(value.lists())"),
        ([gettext_lazy("yes")], "args[0]: lazy text; pass str(value)."),
        ([b"x"], "args[0]: bytes; store it and pass its name, or pass base64 text."),
        ([datetime.now(UTC)], "args[0]: datetime; pass str(value)."),
        ([date(2024, 1, 1)], "args[0]: date; pass str(value)."),
        ([timedelta(1)], "args[0]: timedelta; pass value.total_seconds()."),
        ([UUID(int=0)], "args[0]: UUID; pass str(value)."),
        ([Decimal(1)], "args[0]: Decimal; pass str(value)."),
        ([PurePosixPath("/")], "args[0]: PurePosixPath; pass str(value)."),
        ([{1}], "args[0]: set; pass sorted(value)."),
        ([{"a": 1}.keys()], "args[0]: dict_keys; pass sorted(value)."),
        ([{"a": 1}.values()], "args[0]: dict_values; pass list(value)."),
        ([range(3)], "args[0]: range; pass list(value)."),
        ([iter(())], "args[0]: tuple_iterator; pass list(value)."),
        ([deque()], "args[0]: deque; pass list(value)."),
        ([Plain.A], "args[0]: Plain; pass value.value."),
        ([Point(1)], "args[0]: Point instance; pass dataclasses.asdict(value)."),
        ([Array()], "args[0]: Array; pass value.tolist()."),
        ([io.BytesIO()], "args[0]: BytesIO; store the file and pass its name."),
        ([ValueError("x")], "args[0]: ValueError; pass str(value)."),
        ([test_the_copy_shares_no_container_with_the_original], "args[0]: function; pass its name"),
        ([int], "args[0]: type; pass its name."),
        ([1j], "args[0]: complex instance; pass its id, or its fields as a dict."),
        ([float("nan")], "args[0]: float nan; pass None, or a text such as str(value)."),
        ([float("-inf")], "args[0]: float -inf; pass None"),
        ([2**63], "args[0]: int of 64 bits, more than a signed 64-bit integer; pass str(value)."),
        ([10**5000], "args[0]: int of 16610 bits, more than"),
        (["a\0"], "args[0]: text with a NUL at index 1; remove it"),
        (["\ud800"], "args[0]: text with a lone surrogate at index 0; decode it"),
        ({"a b": {"\n": {1}}}, "args['a b']['\\n']: set; pass sorted(value)."),
        ({"a": {1: 2}}, "args.a: a key of type int; pass str(key)."),
        ({"a": {None: 2}}, "args.a: a key of type NoneType; pass str(key)."),
        ([{"\0": 2}], "args[0]: a key that is text with a NUL at index 0"),
        ({Twin("k"): 1, Twin("k"): 2}, "args: two keys that both read 'k'; rename one."),
    ],
)
def test_what_json_cannot_carry_is_named_by_path_with_what_to_pass(value: Any, words: str) -> None:
    assert refusal(value).startswith(words)


def test_a_coroutine_is_to_be_awaited() -> None:
    pending = coroutine()
    assert refusal([pending]).startswith("args[0]: coroutine; await it and pass what it returns.")
    pending.close()
    loop = asyncio.new_event_loop()
    assert "await it" in refusal({"f": loop.create_future()})
    loop.close()


def test_the_path_is_a_fact_and_the_class_may_be_chosen() -> None:
    with pytest.raises(UnfitResult) as caught:
        check_json([{"a": b""}], "result", error=UnfitResult)
    assert caught.value.facts == {"path": "result[0].a"}
    assert isinstance(caught.value, TypeError)


def test_a_mapping_that_raises_is_refused_with_its_cause() -> None:
    class Broken(UserDict[str, int]):
        def __iter__(self) -> Iterator[str]:
            raise OSError("gone")

    with pytest.raises(InvalidArguments, match="OSError while it was read") as caught:
        check_json([Broken(a=1)], "args")
    assert isinstance(caught.value.__cause__, OSError)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_nesting_ends_at_64_levels() -> None:
    assert check_json(nested(64), "args") == nested(64)
    assert "nested too deep; store the data and pass its id." in refusal(nested(65))
    assert "nested too deep" in refusal(nested(100_000))
    assert "nested too deep" in refusal({"a": {"b": {}}}, max_depth=2)


def test_a_cycle_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["me"] = [circle]
    assert "nested too deep" in refusal(circle, "kwargs")


def test_size_is_refused_with_both_figures() -> None:
    assert refusal("é" * 1000, max_bytes=1024) == (
        "args: 2,002 bytes, the limit is 1,024; store the data and pass its id."
    )
    assert check_json("é" * 500, "args", max_bytes=1024)


@pytest.mark.parametrize("limits", [{"max_bytes": 262_144}, {"max_bytes": 1}])
def test_what_explodes_is_refused_before_it_is_copied(limits: dict[str, int]) -> None:
    bomb: list[Any] = ["x" * 1000]
    for _ in range(60):
        bomb = [bomb, bomb]
    assert "which is the limit; store the data and pass its id" in refusal(bomb, **limits)
    assert refusal(["x" * 1000] * 10**6, **limits).startswith("args: more than")


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (1e16, "10000000000000000.0"),
        (-1.5e300, None),
        ([1e22, "1e+22"], '[10000000000000000000000.0,"1e+22"]'),
        ({"1e+16": 'a"1e+16'}, '{"1e+16":"a\\"1e+16"}'),
        (1e-300, "1e-300"),
        ([1, {"ä": None}], '[1,{"ä":null}]'),
    ],
)
def test_a_column_is_compact_and_large_floats_keep_their_digits(value: Any, column: str) -> None:
    text = dumps(value)
    assert column is None or text == column
    assert "e+" not in text.replace("1e+", "") or isinstance(value, dict | list)
    assert repr(json.loads(text)) == repr(value)


def test_masking_hides_sensitive_keys_and_passwords_in_urls() -> None:
    shown = mask(
        {
            "user": "ann",
            "password": "x",
            "db_password2": ["x"],
            "API-Key": "x",
            "auth": {"Authorization": "Bearer x", "csrf_token": None},
            "dsn": "x",
            "url": "postgres://ann:x@db/prod",
            "iban": "x",
            "tokens": 3,
            "list": [{"secret": 1}, 2.5, True],
        },
        sensitive=("iban",),
    )
    assert shown == {
        "user": "ann",
        "password": "***",
        "db_password2": "***",
        "API-Key": "***",
        "auth": {"Authorization": "***", "csrf_token": "***"},
        "dsn": "***",
        "url": "postgres://ann:***@db/prod",
        "iban": "***",
        "tokens": 3,
        "list": [{"secret": "***"}, 2.5, True],
    }


def test_masking_stops_at_a_depth_that_only_plain_sql_can_write() -> None:
    assert mask(nested(3), max_depth=2) == [["..."]]
    mask(nested(100_000))

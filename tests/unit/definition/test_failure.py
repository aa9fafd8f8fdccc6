"""Exceptions in words: complete, bounded, without locals or credentials, whatever they do."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cq.definition.failure import describe_exception

LIMIT = 16_384


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:  # noqa: BLE001 - SystemExit is one of the inputs
        return caught


def size(described: dict[str, Any]) -> int:
    return sum(len(text.encode()) for text in described.values())


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Evasive(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise SystemExit


class HostileMeta(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError


class Unnameable(Exception, metaclass=HostileMeta):
    pass


def test_type_message_and_traceback() -> None:
    def body(secret: str) -> None:
        hidden = secret * 2
        raise LookupError(f"no such thing in {len(hidden)}")

    try:
        body("do not show")
    except LookupError as exc:
        described = describe_exception(exc, LIMIT)
    assert described["type"] == "LookupError"
    assert described["message"] == "no such thing in 22"
    assert described["traceback"].startswith("Traceback (most recent call last):\n  File ")
    assert 'body("do not show")' in described["traceback"]
    assert "hidden = " not in described["traceback"]
    assert described["traceback"].endswith("LookupError: no such thing in 22\n")


def test_the_type_is_dotted_outside_builtins() -> None:
    assert describe_exception(Mute(), LIMIT)["type"] == f"{__name__}.Mute"


def test_causes_contexts_and_notes() -> None:
    def convert() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as exc:
            raise RuntimeError("third") from exc

    try:
        convert()
    except RuntimeError as exc:
        exc.add_note("look at the moon")
        text = describe_exception(exc, LIMIT)["traceback"]
    parts = [
        "KeyError: 'first'",
        "During handling of the above exception, another exception occurred:",
        "ValueError: second",
        "The above exception was the direct cause of the following exception:",
        "RuntimeError: third\nlook at the moon\n",
    ]
    assert sorted(parts, key=text.index) == parts


def test_from_none_hides_the_context() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None
    except ValueError as exc:
        text = describe_exception(exc, LIMIT)["traceback"]
    assert text.count("Traceback") == 1
    assert "KeyError: " not in text


def test_groups_show_their_members() -> None:
    group = ExceptionGroup("both", [raised(KeyError("a")), ExceptionGroup("in", [OSError("b")])])
    text = describe_exception(raised(group), LIMIT)["traceback"]
    for words in ("ExceptionGroup: both", "--- 1 of 2 ---", "KeyError: 'a'", "    OSError: b"):
        assert words in text


def test_a_group_that_explodes_is_bounded() -> None:
    group = ExceptionGroup("g", [ValueError("x" * 10_000)] * 50)
    for _ in range(50):
        group = ExceptionGroup("g", [group] * 50)
    described = describe_exception(group, LIMIT)
    assert size(described) <= LIMIT
    assert "More exceptions are not shown." in described["traceback"]


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert describe_exception(one, LIMIT)["traceback"].count("ValueError: ") == 2


@pytest.mark.parametrize(
    "exc",
    [Mute(), Evasive("x"), Unnameable("x"), SystemExit(3), KeyboardInterrupt(), MemoryError()],
    ids=lambda exc: type(exc).__name__,
)
def test_hostile_exceptions_are_described_all_the_same(exc: BaseException) -> None:
    described = describe_exception(raised(exc), LIMIT)
    assert described.keys() == {"type", "message", "traceback"}
    assert type(exc).__name__ in described["type"]


def test_a_raising_str_is_said() -> None:
    described = describe_exception(raised(Mute()), LIMIT)
    assert described["message"] == "<Mute.__str__ raised KeyboardInterrupt>"
    assert "Mute: <Mute.__str__" in described["traceback"]


def test_endless_recursion_shows_its_innermost_frames() -> None:
    def again(n: int) -> None:
        again(n + 1)

    try:
        again(0)
    except RecursionError as exc:
        text = describe_exception(exc, LIMIT)["traceback"]
    assert "outer frames not shown" in text
    assert "maximum recursion depth exceeded" in text
    assert len(text.splitlines()) < 20


def test_fifty_megabytes_cost_next_to_nothing() -> None:
    exc = raised(ValueError("boom\0\ud800" * 9_000_000))
    begin = time.process_time()
    described = describe_exception(exc, LIMIT)
    assert time.process_time() - begin < 0.3
    assert size(described) <= LIMIT
    assert "characters cut" in described["message"]


def test_credentials_are_masked_in_message_and_traceback() -> None:
    exc = raised(ConnectionError("redis://:hunter2@cache:6379 refused, password=hunter2"))
    described = describe_exception(exc, LIMIT)
    assert described["message"] == "redis://:***@cache:6379 refused, password=***"
    assert "hunter2" not in described["traceback"]


def test_an_exception_without_traceback() -> None:
    assert describe_exception(ValueError("x"), LIMIT)["traceback"] == "ValueError: x\n"


@given(st.text(st.characters()), st.integers(-5, 2_000))
@settings(max_examples=100)
def test_never_raises_and_keeps_its_limit(text: str, limit: int) -> None:
    exc = ValueError(text * 20)
    exc.__context__ = ExceptionGroup(text or "x", [KeyError(text), OSError(text)])
    described = describe_exception(exc, limit)
    assert size(described) <= max(limit, 0)
    assert all("\0" not in part for part in described.values())

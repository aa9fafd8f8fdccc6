"""Text for rows: replaced, cut and masked, whatever it was, at a cost its limit bounds."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cq.definition.text import clean_text, is_sensitive, mask_text, safe_text, text_of

ANY_TEXT = st.text(st.characters())  # surrogates and NUL included


@given(ANY_TEXT, st.integers(-1, 300))
@settings(max_examples=200)
def test_clean_text_is_storable_and_within_its_limit(text: str, limit: int) -> None:
    for clean in (clean_text(text * 5, limit), safe_text(text * 5, limit)):
        assert type(clean) is str
        assert "\0" not in clean
        assert len(clean.encode()) <= max(limit, 0)


def test_text_that_fits_stays_as_it_is() -> None:
    assert clean_text("naïve \N{SNOWMAN}\r\n\x1b[0m", 100) == "naïve \N{SNOWMAN}\r\n\x1b[0m"


def test_what_databases_refuse_is_replaced() -> None:
    assert clean_text("a\0b\udc80c", 100) == "a\ufffdb\ufffdc"


def test_the_cut_is_in_the_middle_and_counted() -> None:
    text = "begin" + "x" * 1000 + "end"
    clean = clean_text(text, 200)
    first, marker, last = clean.partition(" [... ")
    count, _, last = last.partition(" characters cut ...] ")
    assert marker
    assert first.startswith("begin")
    assert last.endswith("end")
    assert len(first) + int(count) + len(last) == len(text)


def test_the_count_is_exact_for_huge_and_wide_text() -> None:
    text = "é\N{SNOWMAN}" * 1_000_000
    first, _, rest = clean_text(text, 1000).partition(" [... ")
    count, _, last = rest.partition(" characters cut ...] ")
    assert len(first) + int(count) + len(last) == len(text)
    assert text.startswith(first)
    assert text.endswith(last)


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise SystemExit

    def __len__(self) -> int:
        return 3


def test_a_hostile_str_becomes_words() -> None:
    assert text_of(Shouting("x")) == "<Shouting.__str__ raised SystemExit>"
    assert clean_text(Shouting("x"), 100) == "<Shouting.__str__ raised SystemExit>"
    assert clean_text(12, 100) == "12"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("postgres://ann:p@ss:w@db/x?y", "postgres://ann:***@db/x?y"),
        ("a://u:p@h b://u:p@h", "a://u:***@h b://u:***@h"),
        ("http://localhost:8000/?mail=a@b.c", "http://localhost:8000/?mail=a@b.c"),
        ("password=hunter2 host=db", "password=*** host=db"),
        ("password='hunter 2', user", "password=***, user"),
        ("{'token': 'abc', 'n': 1}", "{'token': ***, 'n': 1}"),
        ('{"api_key":"a\\"b"}', '{"api_key":***}'),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("AWS_SECRET_ACCESS_KEY=abc", "AWS_SECRET_ACCESS_KEY=***"),
        ("?token=abc&page=2", "?token=***&page=2"),
        ("secret => abc", "secret => ***"),
        ("if token == other:", "if token == other:"),
        ("password authentication failed", "password authentication failed"),
        ("max_tokens=100", "max_tokens=100"),
        ("KeyError: 'password'", "KeyError: 'password'"),
    ],
)
def test_credentials_are_masked_and_the_rest_is_not(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_a_secret_across_the_cut_is_masked_before_it() -> None:
    text = "x" * 90 + " postgres://ann:" + "hunter2" * 20 + "@db/ " + "y" * 500
    assert "hunter" not in safe_text(text, 256)


@pytest.mark.parametrize("key", ["password", "X-Auth-Token", "client_secret", "session_id", "PWD1"])
def test_sensitive_keys(key: str) -> None:
    assert is_sensitive(key)
    assert not is_sensitive(f"{key}_form")
    assert is_sensitive(f"{key}_form", {f"{key}_form"})


@pytest.mark.parametrize(
    "text",
    [
        "a" * 65_536,
        "a-" * 32_768,
        "://" * 20_000,
        "://a:" * 12_000,
        "password" * 8_000,
        "password=" * 8_000,
        "password='" + "\\" * 60_000,
        "token: " * 9_000,
        "@" * 65_536,
    ],
)
def test_masking_takes_linear_time(text: str) -> None:
    begin = time.process_time()
    mask_text(text)
    assert time.process_time() - begin < 0.5

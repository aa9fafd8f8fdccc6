"""What a stranger wrote cannot steer the terminal of whoever reads it."""

from __future__ import annotations

import pytest

from cq.terminal.text import duration, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ümläute, 漢字 ✔\tand\nlines", "plain, ümläute, 漢字 ✔\tand\nlines"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b]0;a new title\x07here", "here"),
        ("\x1b]52;c;ZXZpbA==\x1b\\here", "here"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never closed", ""),
        ("\x1bPdevice control\x1b\\here", "here"),
        ("\x1bc reset", " reset"),
        ("\x1b", ""),
        ("over\rwritten\b\x7f", "over�written��"),
        ("two\r\nlines", "two\nlines"),
        ("\x9b2J c1 \x85", "�2J c1 �"),
        ("user\u202egnp.exe\u2066", "user�gnp.exe�"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[\x1b[2J31mnested", "31mnested"),
    ],
)
def test_what_steers_is_dropped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert "\x1b" not in printable(text)


def test_colours_stay_where_they_are_wanted_and_nothing_else_does() -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b[2J\x1b[5A\x1b]0;t\x07\x1b[?25lend"
    assert printable(text, colours=True) == "\x1b[1;31mred\x1b[0m end"


def test_a_huge_line_of_sequences_is_read_in_linear_time() -> None:
    for text in ("\x1b]" * 100_000, "\x1b[" * 100_000, "\x1b[1" * 100_000, "\x1b " * 100_000):
        assert "\x1b" not in printable(text)


def test_one_line_is_one_line_and_not_too_long() -> None:
    assert one_line("a\nb\x1b[2K\tc  d") == "a b c d"
    assert one_line("x" * 500, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.04, "0.0 s"), (12.34, "12.3 s"), (65, "1:05"), (7384, "2:03:04")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text

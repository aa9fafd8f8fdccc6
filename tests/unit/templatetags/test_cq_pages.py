"""The drawings of cq's own pages."""

from __future__ import annotations

import re

from cq.templatetags.cq_pages import spark


def lines(drawing: str) -> list[list[str]]:
    """The stretches of the line, each as its points."""
    path = re.findall(r'<path d="([^"]*)"', drawing)[0]
    return [stretch.split(" L") for stretch in path.removeprefix("M").split(" M")]


def test_a_line_has_gaps_where_nothing_is_known():
    first, second = lines(spark([None, 1, 2, None, None, 4, 4], "waiting"))
    assert (len(first), len(second)) == (2, 2)
    assert first[0].startswith("20.0,")
    assert second[-1].startswith("120.0,")


def test_a_single_minute_is_seen():
    assert lines(spark([None, 3, None], "waiting")) == [["60.0,1.5", "60.0,1.5"]]


def test_nothing_known_is_nothing_drawn():
    assert "<path" not in spark([None] * 60, "waiting")
    assert "<path" not in spark([], "waiting")


def test_its_top_is_said_in_words():
    assert 'aria-label="waiting: at most 7 in the last hour"' in spark([0, 7, 3], "waiting")

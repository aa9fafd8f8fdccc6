"""Names of groups, and the reading of what may be garbage."""

from __future__ import annotations

from uuid import uuid4

import pytest
from channels.layers import BaseChannelLayer

from cq.transport.groups import (
    MAX_ROOTS,
    WATCHERS_GROUP,
    WORKERS_GROUP,
    ask_message,
    audience_messages,
    event_message,
    kind_of,
    root_group,
    root_of,
    roots_of,
)

GARBAGE = [None, 7, "x", [], {}, {"roots": 3}, {"root": 3, "kind": []}, {"root": "A" * 32}]


def test_groups_have_names_that_channels_accepts():
    layer = BaseChannelLayer()
    for name in (root_group(uuid4()), WORKERS_GROUP, WATCHERS_GROUP):
        assert layer.require_valid_group_name(name)


def test_a_root_has_one_group_in_both_spellings():
    root = uuid4()
    assert root_group(root) == root_group(root.hex) == f"cq.root.{root.hex}"


def test_announcements_name_at_most_a_hundred_roots_each():
    roots = [uuid4().hex for _ in range(MAX_ROOTS * 2 + 1)]
    messages = audience_messages(roots)
    assert [len(message["roots"]) for message in messages] == [MAX_ROOTS, MAX_ROOTS, 1]
    assert [root for message in messages for root in roots_of(message)] == roots


def test_an_event_says_which_tree_it_is_about():
    root = uuid4().hex
    message = event_message(root, "log", "me", lines=[])
    assert (root_of(message), kind_of(message), message["lines"]) == (root, "log", [])


def test_a_question_is_known_by_its_kind():
    assert kind_of(ask_message()) == "ask"


@pytest.mark.parametrize("message", GARBAGE)
def test_garbage_is_read_as_nothing(message: object):
    assert (roots_of(message), root_of(message), kind_of(message)) == ([], None, "")


def test_what_is_not_a_root_is_dropped_from_an_announcement():
    root = uuid4().hex
    assert roots_of({"roots": [root, 7, None, "zz", root.upper()]}) == [root]

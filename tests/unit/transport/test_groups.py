"""Names of groups, and the reading of what may be garbage."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from channels.layers import BaseChannelLayer

from cq.transport.groups import (
    LINES_PER_EVENT,
    MAX_ROOTS,
    WATCHERS_GROUP,
    WORKERS_GROUP,
    ask_message,
    audience_messages,
    event_message,
    gather,
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


class TestGathering:
    """What waits for one group while the last event of it is a moment old."""

    @staticmethod
    def event(kind: str, origin: str = "here", **data: Any) -> dict[str, Any]:
        return event_message("0" * 32, kind, origin, **data)

    def log(self, *numbers: int) -> dict[str, Any]:
        return self.event("log", lines=[{"seq": n, "message": f"line {n}"} for n in numbers])

    def state(self, id: str, **facts: Any) -> dict[str, Any]:
        return self.event("state", nodes=[{"id": id, **facts}])

    def gathered(self, *events: dict[str, Any]) -> list[Any]:
        waiting: list[dict[str, Any]] = []
        for event in events:
            gather(waiting, event)
        return [
            [line["seq"] for line in event["lines"]]
            if "lines" in event
            else event.get("nodes", event["kind"])
            for event in waiting
        ]

    def test_lines_and_states_of_many_tasks_become_two_events(self):
        told = [self.log(1), self.state("a"), self.log(2, 3), self.state("b"), self.log(4)]
        assert self.gathered(*told) == [[1, 2, 3, 4], [{"id": "a"}, {"id": "b"}]]

    def test_a_state_never_comes_before_the_lines_that_came_before_it(self):
        told = [self.state("a"), self.log(1), self.state("a", status="success")]
        assert self.gathered(*told) == [
            [{"id": "a"}],
            [1],
            [{"id": "a", "status": "success"}],
        ]

    def test_lines_stay_in_order_when_an_event_is_full(self):
        full = self.log(*range(1, LINES_PER_EVENT + 1))
        told = [full, self.log(201), self.state("a"), self.log(202)]
        assert self.gathered(*told)[1:] == [[201, 202], [{"id": "a"}]]
        assert full["lines"][-1]["seq"] == LINES_PER_EVENT

    def test_long_lines_make_events_of_their_own(self):
        told = [self.event("log", lines=[{"seq": n, "message": "x" * 40_000}]) for n in (1, 2)]
        assert self.gathered(*told) == [[1], [2]]

    def test_ends_and_looks_are_told_once_and_the_rest_is_left_alone(self):
        told = [self.event("end"), self.event("end"), self.event("look"), self.event("look")]
        assert self.gathered(*told, ask_message(), ask_message()) == [
            "end",
            "look",
            "ask",
            "ask",
        ]

    def test_two_processes_are_not_mixed(self):
        told = [self.event("end", "here"), self.event("end", "there")]
        assert self.gathered(*told) == ["end", "end"]

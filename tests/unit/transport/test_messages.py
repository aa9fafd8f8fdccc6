"""Channel names, and reading messages that anybody may have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.definition.ids import uuid7
from cq.errors import InvalidOption
from cq.transport import messages
from cq.transport.messages import channel_name, control_message, ids_of, run_message


def test_the_default_queue_keeps_the_historic_channel() -> None:
    assert channel_name("default") == "cq-tasks"
    assert channel_name("video") == "cq-tasks.video"


def test_the_longest_queue_fits_the_limit_of_channels() -> None:
    assert len(channel_name("q" * 80)) < 100


@pytest.mark.parametrize("queue", ["", "a b", "a\n", "é", "q" * 81, "a!b", "a/b", "٣"])
def test_a_queue_that_no_channel_can_bear_is_refused(queue: str) -> None:
    with pytest.raises(InvalidOption, match="1 to 80 of the characters"):
        channel_name(queue)


def test_a_run_message_carries_ids_and_nothing_else() -> None:
    ids = [uuid7() for _ in range(3)]
    message = run_message(task_id.hex for task_id in ids)
    assert set(message) == {"type", "v", "ids"}
    assert message["type"] == "cq.run"
    assert message["v"] == 1
    assert ids_of(message) == ids


def test_a_control_message_cannot_be_told_another_type() -> None:
    message = control_message("revoke", ids=["x"], type="cq.run", v=9)
    assert message == {"type": "cq.control", "v": 1, "kind": "revoke", "ids": ["x"]}


def test_an_unknown_version_is_still_a_bell() -> None:
    task_id = uuid7()
    assert ids_of({"type": "cq.run", "v": 99, "ids": [task_id.hex], "more": {}}) == [task_id]


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        7,
        "ids",
        [],
        {},
        {"ids": None},
        {"ids": "0" * 32},
        {"ids": {"a": 1}},
        {"ids": [None, 1, b"\x00" * 16, [], {}, "", "0" * 31, "g" * 32, "A" * 32, "0" * 32 + "\n"]},
    ],
)
def test_garbage_is_dropped_and_counted(garbage: object) -> None:
    before = messages.garbage()
    assert ids_of(garbage) == []
    assert messages.garbage() > before


def test_an_endless_list_is_cut() -> None:
    assert len(ids_of({"ids": ["0" * 32] * 100_000})) == messages.MAX_IDS


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json | st.fixed_dictionaries({"ids": _json}))
def test_reading_never_raises(message: object) -> None:
    assert isinstance(ids_of(message), list)

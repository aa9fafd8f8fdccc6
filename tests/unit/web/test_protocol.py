"""What a client may say: every verb, and every way to get it wrong (B27, B28, B30, B32)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.errors import InvalidFrame
from cq.web.protocol import (
    MAX_NUMBER,
    Ack,
    Act,
    Allowance,
    Ping,
    Shared,
    Sub,
    Unsub,
    encode,
    error_frame,
    parse,
    parse_id,
)

ID = uuid4()


def read(**frame: Any) -> object:
    return parse(json.dumps(frame))


def test_the_five_verbs():
    assert read(type="sub", id=str(ID), token="t", since=3) == Sub(ID, "t", 3, None)
    assert read(type="sub", id=ID.hex, tail=10) == Sub(ID, None, None, 10)
    assert read(type="unsub", id=str(ID)) == Unsub(ID)
    assert read(type="act", id=str(ID), do="revoke") == Act(ID, "revoke", None)
    assert read(type="act", id=str(ID), do="retry", token="t") == Act(ID, "retry", "t")
    assert read(type="ack", frame=7) == Ack(7)
    assert read(type="ping") == Ping()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_frame"),
        ("{", "bad_frame"),
        ("[]", "bad_frame"),
        ("null", "bad_frame"),
        ('"sub"', "bad_frame"),
        ("[" * 4000, "bad_frame"),
        ("9" * 4090, "bad_frame"),
        ("{}", "unknown_type"),
        ('{"type": null}', "unknown_type"),
        ('{"type": ["sub"]}', "unknown_type"),
        ('{"type": {"sub": 1}}', "unknown_type"),
        ('{"type": "SUB"}', "unknown_type"),
        ('{"type": "_close"}', "unknown_type"),
        ('{"type": "_on_sub"}', "unknown_type"),
        ('{"type": "__init__"}', "unknown_type"),
        ('{"type": "websocket.disconnect"}', "unknown_type"),
        ('{"type": "sub"}', "bad_id"),
        ('{"type": "ack"}', "bad_frame"),
        ('{"type": "ack", "frame": "1"}', "bad_frame"),
    ],
)
def test_what_is_outside_the_protocol_is_refused(text: str, code: str):
    with pytest.raises(InvalidFrame) as caught:
        parse(text)
    assert caught.value.facts["code"] == code


@pytest.mark.parametrize("since", [-1, MAX_NUMBER + 1, "abc", "3", 1.5, True, [], {}, 10**400])
def test_a_since_that_is_no_number_is_refused(since: Any):
    with pytest.raises(InvalidFrame) as caught:
        read(type="sub", id=str(ID), since=since)
    assert caught.value.facts["code"] == "bad_since"


def test_a_since_from_the_future_is_left_to_the_rows():
    assert read(type="sub", id=str(ID), since=10**18) == Sub(ID, None, 10**18, None)


@pytest.mark.parametrize(
    "id",
    [
        None,
        7,
        "",
        "x",
        " " + str(ID),
        str(ID) + " ",
        str(ID) + "\n",
        "{" + str(ID) + "}",
        "urn:uuid:" + str(ID),
        ID.hex[:-1],
        ID.hex[:-1] + "\u0661",
        ID.hex[:-1] + "_",
        "\uff11" * 32,
        "../" * 12,
        [str(ID)],
    ],
)
def test_an_id_has_two_spellings_and_no_third(id: Any):
    with pytest.raises(InvalidFrame) as caught:
        parse_id(id)
    assert caught.value.facts["code"] == "bad_id"


@pytest.mark.parametrize("token", [7, ["t"], {"t": 1}, "x" * 1025])
def test_a_token_is_a_short_text(token: Any):
    with pytest.raises(InvalidFrame) as caught:
        read(type="sub", id=str(ID), token=token)
    assert caught.value.facts["code"] == "bad_token"


@pytest.mark.parametrize("do", [None, "", "delete", "__class__", ["revoke"], {"revoke": 1}])
def test_an_action_is_one_of_two_words(do: Any):
    with pytest.raises(InvalidFrame) as caught:
        read(type="act", id=str(ID), do=do)
    assert caught.value.facts["code"] == "bad_action"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
FIELDS = st.sampled_from(["type", "id", "token", "since", "tail", "do", "frame", "x"])
VALUES = JSON | st.sampled_from(["sub", "unsub", "act", "ack", "ping", str(ID), "revoke"])


@given(st.dictionaries(FIELDS, VALUES) | JSON)
def test_no_frame_does_anything_but_parse_or_be_refused(frame: Any):
    try:
        verb = parse(json.dumps(frame))
    except InvalidFrame as error:
        encode(error_frame(error.facts["code"], str(error))).encode()
    else:
        assert isinstance(verb, Sub | Unsub | Act | Ack | Ping)


@given(st.text())
def test_no_text_does_either(text: str):
    with suppress(InvalidFrame):
        parse(text)


def test_an_error_frame_says_whether_to_try_again():
    assert error_frame("unavailable", "x", id=ID)["retryable"] is True
    assert error_frame("refused", "x", id=ID) == {
        "type": "err",
        "id": str(ID),
        "code": "refused",
        "message": "x",
        "retryable": False,
    }


def test_an_allowance_lets_a_burst_through_and_then_a_steady_rate():
    allowance = Allowance(20, 40, now=0)
    assert [allowance.take(0) for _ in range(41)] == [True] * 40 + [False]
    assert not allowance.take(0.04)
    assert allowance.take(0.06)
    assert 37 <= sum(allowance.take(1 + step / 1000) for step in range(1000)) <= 40


def test_a_frame_can_be_sent_whatever_is_in_it():
    for text in ("\ud800", "\u0000", "\u202e", "é", "<script>"):
        assert json.loads(encode({"message": text}).encode()) == {"message": text}


def test_a_part_that_many_frames_share_is_written_once():
    class Node(dict[str, Any]):
        written = 0

        def items(self) -> Any:
            Node.written += 1
            return super().items()

    shared = Shared([Node(id="a", message="é \ud800 </script>")])
    for number in (1, 2):
        frame = {"type": "state", "nodes": shared, "live": True, "frame": number}
        assert json.loads(encode(frame).encode()) == {**frame, "nodes": shared.value}
    before = Node.written
    encode({"nodes": shared})
    assert Node.written == before
    assert not Shared([])

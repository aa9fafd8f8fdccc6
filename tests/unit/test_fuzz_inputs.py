"""
Texts, frames and messages as no sane client writes them: a hundred thousand in all.

What is valid is damaged, what is well-formed is filled with nonsense; only the documented
error may come of it. Arguments have their own, in `definition/test_payload_fuzz.py`.
`CQ_FUZZ=1000000` tries that many, `CQ_FUZZ_SEED=7` repeats a run; a failure prints both.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from cq.definition.crontab import Crontab, zone
from cq.errors import InvalidCrontab, InvalidFrame, InvalidOption
from cq.transport.messages import MAX_IDS, garbage, ids_of, run_message
from cq.web.protocol import MAX_NUMBER, Ack, Act, Ping, Sub, Unsub, encode, parse

COUNT = int(os.environ.get("CQ_FUZZ", "25000"))
SEED = int(os.environ.get("CQ_FUZZ_SEED", "0")) or random.randrange(1, 10**9)
ID = "0190a6b2-7c1d-7e3f-8a4b-5c6d7e8f9a0b"
ODD = '*/-,#?LRW@%0123456789 \t\n\r\x00\x85\u00a0\u0663²½\u202e\ud800é{}[]":\\'
NONSENSE = ("", "__class__", "../../etc/passwd", "9" * 400, "\x00", "\ud800", "<img src=x>", "%s{}")


class Fuzz:
    """A seeded source of damage."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def damage(self, text: str) -> str:
        """Insert, drop, replace or repeat a few pieces of a text."""
        for _ in range(self.random.randrange(4)):
            at = self.random.randrange(len(text) + 1)
            to = min(len(text), at + self.random.choice((0, 0, 1, 1, 2, 5)))
            piece = self.random.choice(
                ("", self.random.choice(ODD), text[at:to] * self.random.choice((2, 2, 30)))
            )
            text = text[:at] + piece + text[to:]
        return text

    def value(self, depth: int = 2) -> Any:
        pick = self.random
        kind = pick.randrange(9 if depth else 7)
        if kind == 7:
            return [self.value(depth - 1) for _ in range(pick.randrange(4))]
        if kind == 8:
            return {self.damage("id"): self.value(depth - 1) for _ in range(pick.randrange(3))}
        return (
            None,
            pick.random() < 0.5,
            pick.choice((-1, 0, 1, MAX_NUMBER, MAX_NUMBER + 1, 10**30)),
            pick.choice((0.5, 1e308, float("nan"), float("-inf"))),
            self.damage(ID),
            ID,
            pick.choice(NONSENSE),
        )[kind]


def fuzzed(check: Callable[[Fuzz], None]) -> None:
    """Run a check many times; a failure names the seed and the turn."""
    for turn in range(COUNT):
        try:
            check(Fuzz(SEED * 1_000_003 + turn))
        except BaseException as problem:
            problem.add_note(f"turn {turn} of CQ_FUZZ={COUNT} CQ_FUZZ_SEED={SEED}")
            raise


def tried(call: Callable[[], Any], refusal: type[Exception]) -> tuple[Any, Exception | None]:
    """What a call returns, or its documented error."""
    try:
        return call(), None
    except refusal as error:
        return None, error


# --- crontabs -----------------------------------------------------------------------------------

CRONTABS = ("* * * * *", "*/5 0-6,22 1,15 JAN-MAR MON-FRI", "0 0 29 2 1", "59 23 31 12 7")
START = datetime(2026, 3, 28, 12, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def read_crontab(fuzz: Fuzz) -> None:
    text = fuzz.damage(fuzz.random.choice(CRONTABS))
    read, refused = tried(lambda: Crontab.parse(text), InvalidCrontab)
    if refused:
        assert str(refused).endswith(".")
        assert len(str(refused)) < 1000
        return
    assert Crontab.parse(read.text) == read
    assert read.text.isascii()
    # The walk to the next firing is a hundred times as long as the reading.
    if fuzz.random.random() < 0.02:
        assert read.next_after(START, BERLIN) > START


def test_a_damaged_crontab_is_read_or_refused() -> None:
    fuzzed(read_crontab)


def test_a_damaged_zone_is_known_or_refused() -> None:
    fuzz = Fuzz(SEED)
    for _ in range(50):  # each refusal looks for the nearest name, which takes its time
        name = fuzz.damage("Europe/Berlin")
        known, refused = tried(lambda name=name: zone(name), InvalidOption)
        assert known.key == name if known else str(refused).endswith((".", "?"))


# --- frames of the socket -----------------------------------------------------------------------

VERBS = ("sub", "unsub", "act", "ack", "ping", "_close", "__init__", "receive")
KEYS = ("id", "token", "since", "tail", "do", "frame", "type")


def frame_of(fuzz: Fuzz) -> str:
    frame = {"type": fuzz.random.choice(VERBS), "id": ID, "frame": 7, "do": "revoke"}
    for key in fuzz.random.sample(KEYS, fuzz.random.randrange(4)):
        frame[key] = fuzz.value()
    text = json.dumps(frame, ensure_ascii=fuzz.random.random() < 0.5)
    return fuzz.damage(text) if fuzz.random.random() < 0.5 else text


def read_frame(fuzz: Fuzz) -> None:
    verb, refused = tried(lambda: parse(frame_of(fuzz)), InvalidFrame)
    if isinstance(refused, InvalidFrame):
        assert refused.code
        assert len(str(refused)) < 1000
        return
    assert type(verb) in (Sub, Unsub, Act, Ack, Ping)
    if isinstance(verb, Sub | Unsub | Act):
        assert type(verb.id) is UUID
    if isinstance(verb, Ack):
        assert 0 <= verb.frame <= MAX_NUMBER


def test_a_damaged_frame_is_a_verb_or_refused() -> None:
    fuzzed(read_frame)


@pytest.mark.parametrize("opening", ['{"type":', "[", '{"a":{"a":', "[[[[", '"', "1"])
def test_a_frame_that_nests_or_never_ends_is_refused(opening: str) -> None:
    with pytest.raises(InvalidFrame):
        parse(opening * 50_000)


def test_whatever_is_in_a_frame_can_be_sent() -> None:
    def check(fuzz: Fuzz) -> None:
        frame = {"type": "log", "message": fuzz.damage("é\ud800" + ODD)}
        text = encode(frame)
        assert text.encode()
        assert json.loads(text)["type"] == "log"

    fuzzed(check)


# --- messages of the task layer -----------------------------------------------------------------


def message_of(fuzz: Fuzz) -> Any:
    pick = fuzz.random
    hexes = [f"{pick.getrandbits(128):032x}" for _ in range(pick.randrange(4))]
    message: Any = run_message(hexes)
    for key in pick.sample(("type", "v", "ids"), pick.randrange(3)):
        message[key] = fuzz.value()
    if pick.random() < 0.5 and isinstance(message["ids"], list):
        odd = (fuzz.value(), fuzz.damage(ID.replace("-", "")), b"\xff", pick.choice(NONSENSE))
        message["ids"] += pick.choices(odd, k=pick.choice((1, 2, 200)))
    return message if pick.random() < 0.9 else fuzz.value()


def read_message(fuzz: Fuzz) -> None:
    message = message_of(fuzz)
    before = garbage()
    ids = ids_of(message)
    assert len(ids) <= MAX_IDS
    assert all(type(id) is UUID for id in ids)
    listed = message.get("ids") if isinstance(message, dict) else None
    dropped = len(listed) - len(ids) if isinstance(listed, list) else 1
    assert garbage() - before == dropped


def test_a_damaged_message_is_read_for_its_ids() -> None:
    fuzzed(read_message)

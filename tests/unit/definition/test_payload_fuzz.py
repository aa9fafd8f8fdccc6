"""
Arguments nobody would write by hand, by the ten thousand.

`CQ_FUZZ=1000000` tries that many, `CQ_FUZZ_SEED=7` repeats a run; a failure prints both.
"""

import json
import os
import random
from collections import OrderedDict, UserDict, UserString
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from cq.definition.payload import check_json, dumps, mask
from cq.errors import InvalidArguments

COUNT = int(os.environ.get("CQ_FUZZ", "10000"))
SEED = int(os.environ.get("CQ_FUZZ_SEED", "0")) or random.randrange(1, 10**9)
MAX_BYTES = 2_000
PLAIN = {type(None), bool, int, float, str, list, dict}


class Word(StrEnum):
    YES = "yes"


class Number(IntEnum):
    TEN = 10


class Liar:
    """Claims to be a string, an integer, a list: whatever isinstance() wants to hear."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return random.choice([str, int, list, dict])

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Fuzz:
    """A seeded source of values, good and bad."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        alphabet = "ab.[]'\"\\\n{}%é\N{SNOWMAN}\U0001f600e+16"
        return "".join(self.random.choices(alphabet, k=self.random.randrange(8)))

    def good_leaf(self) -> Any:
        pick = self.random
        return pick.choice(
            [
                None,
                pick.random() < 0.5,
                pick.randrange(-(2**63), 2**63),
                pick.randrange(-9, 9),
                pick.uniform(-1, 1) * 10.0 ** pick.randrange(-320, 309),
                self.text(),
                Word.YES,
                Number.TEN,
            ]
        )

    def bad_leaf(self) -> Any:
        pick = self.random
        return pick.choice(
            [
                b"x",
                {1},
                object(),
                Liar(),
                UserString("x"),
                datetime.now(UTC),
                Decimal(1),
                UUID(int=1),
                float("nan"),
                float("inf"),
                2**63,
                -(10**400),
                "a\0",
                "\udfff",
                {1: 1},
                {None: 1},
                {"\ud800": 1},
                int,
                len,
                (one for one in ()),
            ]
        )

    def value(self, leaf: Any = None, depth: int = 4) -> Any:
        """A value of good leaves, with the given one planted in its midst if there is one."""
        pick = self.random
        if depth == 0 or (leaf is None and pick.random() < 0.3):
            return self.good_leaf() if leaf is None else leaf
        members = [self.value(None, depth - 1) for _ in range(pick.randrange(4))]
        if leaf is not None:
            members.insert(pick.randrange(len(members) + 1), self.value(leaf, depth - 1))
        if pick.random() < 0.5:
            return pick.choice([list, tuple])(members)
        pairs = {f"{self.text()}{number}": one for number, one in enumerate(members)}
        return pick.choice([dict, OrderedDict, UserDict, MappingProxyType])(pairs)


def types_in(value: Any) -> set[type]:
    found = {type(value)}
    if isinstance(value, dict):
        found |= {type(key) for key in value}
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found |= types_in(item)
    return found


@pytest.mark.timeout(60 + COUNT // 1_000)
def test_good_values_come_back_and_bad_ones_are_refused() -> None:
    fuzz = Fuzz(SEED)
    refused = 0
    for turn in range(COUNT):
        bad = turn % 2 == 1
        value = fuzz.value(fuzz.bad_leaf() if bad else None)
        trace = f"CQ_FUZZ={COUNT} CQ_FUZZ_SEED={SEED}, input {turn}"
        try:
            copy = check_json(value, "args", max_bytes=MAX_BYTES)
        except InvalidArguments as exc:
            refused += 1
            words = str(exc)
            assert bad or "the limit" in words, trace
            assert words.startswith("args"), trace
            assert words.endswith("."), trace
            assert len(words) < 700, trace
            words.encode()
            continue
        assert not bad, trace
        assert types_in(copy) <= PLAIN, trace
        column = dumps(copy)
        assert len(column.encode()) <= MAX_BYTES, trace
        assert repr(json.loads(column)) == repr(copy), trace
        assert check_json(copy, "args") == copy, trace
        assert mask(copy) is not None or copy is None, trace
    assert refused >= COUNT // 2

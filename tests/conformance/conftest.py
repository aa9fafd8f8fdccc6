"""
What conformance tests share: a worker's hand, and the bells that were rung.

The suite runs once on each database (CQ_TEST_DB=postgres, then sqlite): what it says holds
on both.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cq.workflow import aftermath
from tests.conformance.driving import Hand, check_invariants


@pytest.fixture
def hand(database: object) -> Iterator[Hand]:
    """A worker that does what the test says; it leaves rows that keep P17 to P20."""
    yield Hand()
    check_invariants()


@pytest.fixture
def bells(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that were rung for, in order, as "queue id"; nothing is sent."""
    rung: list[str] = []
    monkeypatch.setattr(
        aftermath.dispatcher, "ring", lambda queue, ids: rung.extend(f"{queue} {id}" for id in ids)
    )
    return rung

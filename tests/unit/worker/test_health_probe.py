"""What a worker tells about itself, and the address it tells it on."""

from __future__ import annotations

import pytest

from cq.errors import InvalidOption
from cq.worker.health import HealthProbe, parse_address


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_alive_is_a_claim_loop_that_turned_recently() -> None:
    clock = Clock()
    probe = HealthProbe(silence=60, clock=clock)
    clock.now = 60
    assert probe.live() == (True, "alive")
    clock.now = 61
    assert probe.live() == (False, "the claim loop last turned 61 s ago")
    probe.tick()
    assert probe.live()[0]


def test_an_outage_makes_it_unready_and_leaves_it_alive() -> None:
    probe = HealthProbe(lambda: (False, "the database does not answer"))
    assert probe.ready() == (False, "the database does not answer")
    assert probe.live()[0]


def test_draining_is_unready_whatever_else_holds() -> None:
    probe = HealthProbe()
    assert probe.ready() == (True, "claiming")
    probe.drain()
    assert probe.ready() == (False, "draining")
    assert probe.live()[0]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8001", ("127.0.0.1", 8001)),
        (":8001", ("0.0.0.0", 8001)),
        ("[::1]:0", ("::1", 0)),
        ("worker.internal:80", ("worker.internal", 80)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "8001", "host", "host:", "host:port", "host:65536", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"Expected host:port") as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)

"""Failpoints: nothing while none is armed; else each bites once for each task function."""

from __future__ import annotations

import re
import subprocess
import sys
import timeit
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from cq import failpoints
from tests.architecture.source import written


@dataclass
class Passing:
    """Whatever belongs to a task function."""

    func_name: str


ONE, OTHER = Passing("one"), Passing("other")


def test_a_point_costs_nothing_while_none_is_armed():
    assert failpoints.reached is failpoints.armed("")
    passing = [ONE]
    calls = 100_000
    best = min(
        timeit.repeat(lambda: failpoints.reached("after_claim", passing), number=calls, repeat=5)
    )
    # About 0.1 µs, with the lambda: a task passes some twenty points on its way of 1 ms.
    assert best / calls < 1e-6


def test_every_point_is_reached_somewhere_in_the_engine():
    text = "".join(module.text for module in written())
    named = Counter(re.findall(r'\breached\("(\w+)"', text))
    assert set(named) == set(failpoints.POINTS)


def test_a_point_bites_once_for_each_function(tmp_path: Path):
    reached = failpoints.armed("after_claim:raise", tmp_path)
    reached("before_claim", [ONE])
    with pytest.raises(RuntimeError, match="'after_claim' was reached by one"):
        reached("after_claim", [ONE])
    reached("after_claim", [ONE])
    with pytest.raises(RuntimeError, match="by other"):
        reached("after_claim", [ONE, OTHER])
    again = failpoints.armed("after_claim:raise", tmp_path)
    again("after_claim", [ONE, OTHER])
    with pytest.raises(RuntimeError, match=r"by \."):
        again("after_claim")
    assert {path.name for path in tmp_path.iterdir()} == {
        "after_claim@one",
        "after_claim@other",
        "after_claim@",
    }


def test_a_killing_point_ends_the_process(tmp_path: Path):
    line = "from cq.failpoints import reached; reached('before_beat'); print('alive')"
    environment = {"CQ_FAILPOINT": "before_beat:kill", "CQ_FAILPOINT_MARKS": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True)
        for _ in range(2)
    )
    assert (first.returncode, first.stdout) == (-9, b"")
    assert (second.returncode, second.stdout) == (0, b"alive\n")


@pytest.mark.parametrize("spec", ["after_lunch:kill", "after_claim", "after_claim:sleep"])
def test_what_is_no_point_is_refused(spec: str):
    with pytest.raises(ValueError, match=r"Expected one of before_insert, .* Correct it, or unset"):
        failpoints.armed(spec)

"""Vital signs of a worker and its servers over time, and whether any of them only grows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
ALLOWED = {"MiB": 12.0, "files": 8.0, "threads": 3.0, "sessions": 8.0, "keys": 30.0}
"""What each sign may grow by, from the first quarter to the end, along its straight line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: when, and the value of each sign."""

    at: float
    signs: Mapping[str, float]


def of_process(pid: int) -> dict[str, float]:
    """Memory, open files and threads of a process."""
    home = Path("/proc") / str(pid)
    status = dict(
        line.split(":\t", 1) for line in (home / "status").read_text().splitlines() if ":\t" in line
    )
    return {
        "MiB": int((home / "statm").read_text().split()[1]) * PAGE_MIB,
        "files": len(list((home / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def growth(samples: list[Sample]) -> dict[str, float]:
    """How much each sign has grown from the first quarter on, by least squares."""
    settled = samples[len(samples) // 4 :]
    if len(settled) < 3:
        return {}
    moments = [sample.at for sample in settled]
    middle = sum(moments) / len(moments)
    spread = sum((at - middle) ** 2 for at in moments)
    span = moments[-1] - moments[0]
    return {
        sign: span * sum((sample.at - middle) * sample.signs[sign] for sample in settled) / spread
        for sign in settled[0].signs
    }


def growing(samples: list[Sample]) -> dict[str, float]:
    """The signs that grow by more than they may."""
    return {sign: by for sign, by in growth(samples).items() if by > ALLOWED[sign]}

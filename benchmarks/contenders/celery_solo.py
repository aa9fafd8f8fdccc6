"""Celery without a pool: two workers that each run their tasks themselves."""

from __future__ import annotations

from benchmarks.contender import Command, Load, NotOffered
from benchmarks.contenders.celery import CeleryPrefork


class CelerySolo(CeleryPrefork):
    """The faster way to run short tasks; one at a time, so that it takes no naps."""

    title = "Celery (solo)"
    settings = "2 workers with `-P solo`, prefetch 32 each; otherwise as Celery (prefork)."

    def worker_commands(self, load: Load) -> list[Command]:
        if load == "nap":
            raise NotOffered
        return super().worker_commands(load)

    def pool(self) -> list[str]:
        return ["-P", "solo"]

    def workers(self) -> range:
        return range(2)


contender = CelerySolo()

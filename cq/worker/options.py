"""
What a worker process is told: its command line over the settings over the defaults.
"""

from dataclasses import dataclass

from cq import conf


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of one worker process; seconds and MiB."""

    queues: tuple[str, ...] | None = None
    slots: int = 100
    threads: int = 8
    processes: int = 2
    lanes: int = 4
    grace: float = 30.0
    burst: bool = False
    scheduler: bool = True
    max_tasks: int | None = None
    max_memory: float | None = None
    health: str | None = None
    embedded: bool = False
    claims: bool = True
    """False for a host that is handed ids and claims nothing by itself."""

    @classmethod
    def from_settings(cls, **given: object) -> "WorkerOptions":
        """The settings, with those options replaced that are given and not None."""
        settings = conf.current()
        values: dict[str, object] = {
            "queues": settings.queues,
            "slots": settings.slots,
            "threads": settings.threads,
            "processes": settings.processes,
            "lanes": settings.lanes,
            "grace": settings.grace,
            "scheduler": settings.scheduler,
        }
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]

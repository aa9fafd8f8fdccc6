"""
How the tasks stand, all together: queues, workers, rates, what runs, what nobody serves.

Enters: the rows, by the figures that the pages show. Leaves: one Situation, as a text for
people or as JSON for scripts. A worker counts as live while its heartbeat is fresh, also
where nobody is left who could declare it dead.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cq import conf
from cq.models import figures
from cq.models.figures import CAP, Latency, Parked, QueueFigure, WorkerFigure
from cq.models.minutes import tallies
from cq.models.sql import dialect
from cq.terminal.branches import short
from cq.terminal.text import duration, one_line

_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What one look found; `workers` are the live ones, then those that are not."""

    at: datetime
    queues: list[QueueFigure]
    workers: list[WorkerFigure]
    live: int
    parked: list[Parked]
    latency: Latency
    unserved: list[str]

    @property
    def is_served(self) -> bool:
        """Whether everything that is due has a live worker to run it."""
        return not self.unserved and not self.parked

    def as_json(self) -> dict[str, Any]:
        """Return plain values, of which those that are moments still have to be written out."""
        workers = [
            asdict(worker) | {"is_live": number < self.live}
            for number, worker in enumerate(self.workers)
        ]
        queues = [asdict(queue) | {"eta_seconds": queue.eta_seconds} for queue in self.queues]
        whole = {"at": self.at, "queues": queues, "workers": workers}
        return whole | {
            "parked": [asdict(name) for name in self.parked],
            "latency": asdict(self.latency),
            "unserved": self.unserved,
        }


def look() -> Situation:
    """Read how things stand now; a handful of statements for a table of any size."""
    db = dialect()
    now = figures.moment(db)
    workers = figures.workers(db)
    lease = conf.current().lease
    live = [worker for worker in workers if worker.is_alive and worker.age <= lease]
    others = [worker for worker in workers if worker not in live]
    queues = figures.queues(db, live, tallies(db, figures.RATE_MINUTES + 1), now)
    return Situation(
        at=now,
        queues=queues,
        workers=[*live, *others],
        live=len(live),
        parked=figures.parked(db),
        latency=figures.latency(db),
        unserved=[queue.name for queue in queues if queue.depth and not queue.workers],
    )


def text_of(situation: Situation) -> str:
    """Return a situation as people read it."""
    blocks = [[_headline(situation)]]
    if situation.queues:
        rows = [_queue_row(queue, situation.at) for queue in situation.queues]
        head = ("QUEUE", "DUE", "LATER", "OLDEST", "DONE/MIN", "FAILED/MIN", "WORKERS")
        blocks.append(_table(head, rows))
    if situation.workers:
        rows = [
            _worker_row(worker, number < situation.live, situation.at)
            for number, worker in enumerate(situation.workers)
        ]
        blocks.append(_table(("WORKER", "STATE", "RUNNING", "BEAT", "QUEUES", "TASKS"), rows))
    blocks.append([*_warnings(situation)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _headline(situation: Situation) -> str:
    live = situation.workers[: situation.live]
    running = sum(len(worker.running) for worker in live)
    done = sum(queue.done_per_minute for queue in situation.queues)
    failed = sum(queue.failed_per_minute for queue in situation.queues)
    texts = [
        f"{situation.live} live worker{'' if situation.live == 1 else 's'}",
        f"{running} of {sum(worker.slots for worker in live)} slots taken",
        f"{done:.0f} done and {failed:.0f} failed a minute",
    ]
    if situation.latency.p50 is not None and situation.latency.p95 is not None:
        p50, p95 = situation.latency.p50 * 1000, situation.latency.p95 * 1000
        texts.append(f"due to started {p50:.0f} ms (p50), {p95:.0f} ms (p95)")
    return ", ".join(texts) + "."


def _queue_row(queue: QueueFigure, now: datetime) -> tuple[str, ...]:
    oldest = duration((now - queue.oldest).total_seconds()) if queue.oldest else "-"
    return (
        one_line(queue.name, 40),
        _count(queue.depth),
        _count(queue.later),
        oldest,
        f"{queue.done_per_minute:.0f}",
        f"{queue.failed_per_minute:.0f}",
        str(queue.workers) if queue.workers or not queue.depth else "NONE",
    )


def _worker_row(worker: WorkerFigure, is_live: bool, now: datetime) -> tuple[str, ...]:
    names = Counter(short(task.func_name) for task in worker.running).most_common()
    tasks = [f"{name} ×{count}" if count > 1 else name for name, count in names[:_NAMES_SHOWN]]
    if len(names) > _NAMES_SHOWN:
        tasks.append("…")
    if worker.running:
        oldest = min(task.started for task in worker.running)
        tasks.append(f"(longest {duration((now - oldest).total_seconds())})")
    silent = worker.is_alive and not is_live
    return (
        one_line(worker.name, 40),
        "SILENT" if silent else one_line(worker.state, 12),
        f"{len(worker.running)}/{worker.slots}",
        duration(worker.age),
        "all" if worker.queues is None else one_line(", ".join(worker.queues), 40),
        " ".join(tasks),
    )


def _warnings(situation: Situation) -> Iterable[str]:
    for name in situation.unserved:
        yield (
            f"Queue {one_line(name, 80)!r} has due tasks and no live worker takes it. Start one "
            f"with: python manage.py cq_runworker -Q {one_line(name, 80)}"
        )
    for parked in situation.parked:
        yield (
            f"{_count(parked.count)} task(s) wait for a worker that knows "
            f"{one_line(parked.func_name)!r}. Start one with the code that defines it."
        )


def _count(number: int) -> str:
    return f"{CAP}+" if number > CAP else str(number)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]

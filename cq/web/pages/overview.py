"""
The overview: six numbers with their last hour, queues, workers, and what needs attention.

An open page asks again every few seconds; all pages of a process share one reading a second,
so that a forgotten tab, or fifty, cost the database next to nothing.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from cq.models import RepeatingTask, figures, minutes
from cq.models.figures import Latency, Parked, QueueFigure, WorkerFigure
from cq.models.minutes import MinuteRow, Sample
from cq.models.sql import database, dialect
from cq.web.pages.place import Place, render
from cq.web.pages.words import capped, number, span

HOUR = 60
LATE = timedelta(minutes=1)
LATE_SHOWN = 10
SHARED_SECONDS = 1.0
CELLS = 120
MANY_FAILED = 0.05

Past = tuple[int, int, Sample | None]
"""One minute: what ended, of it badly, and the sample if somebody took one."""
SPANS = {"15m": (15, 1), "1h": (60, 1), "24h": (24 * 60, 15), "7d": (7 * 24 * 60, 120)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number, its last hour, and a word on it."""

    key: str
    label: str
    value: str
    note: str
    values: Sequence[float | None]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """What ended in one stretch of time."""

    label: str
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that somebody should look at, and where."""

    key: str
    tone: str
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything the overview shows, as read at one moment."""

    now: datetime
    queues: list[QueueFigure]
    workers: list[WorkerFigure]
    latency: Latency
    recent: list[MinuteRow]
    samples: list[Sample]
    parked: list[Parked]
    late: list[RepeatingTask]
    lost: int


_shared: tuple[float, Reading] | None = None
_lock = threading.Lock()


def read() -> Reading:
    """Read it all: a constant number of queries, none of which reads more than a few rows."""
    db = dialect()
    now = figures.moment(db)
    workers = figures.workers(db)
    recent = minutes.tallies(db, HOUR)
    late = RepeatingTask.objects.using(database()).filter(enabled=True, next_run__lt=now - LATE)
    return Reading(
        now=now,
        workers=workers,
        recent=recent,
        queues=figures.queues(db, workers, recent, now),
        latency=figures.latency(db),
        samples=minutes.samples(db, HOUR),
        parked=figures.parked(db),
        late=list(late.order_by("next_run")[:LATE_SHOWN]),
        lost=figures.lost_lately(db),
    )


def read_shared() -> Reading:
    """Likewise, but what another page of this process has read within a second will do."""
    global _shared
    with _lock:
        if _shared is None or time.monotonic() - _shared[0] > SHARED_SECONDS:
            _shared = time.monotonic(), read()
        return _shared[1]


@require_GET
def overview(request: HttpRequest, place: Place) -> HttpResponse:
    """The landing page."""
    reading = read_shared() if place.is_live else read()
    chosen = request.GET.get("span", "1h")
    stretch = chosen if chosen in SPANS else "1h"
    columns = chart(reading, stretch)
    context = {
        "title": "Overview",
        "tiles": tiles(reading),
        "queues": reading.queues,
        "workers": [strip(worker) for worker in reading.workers],
        "notices": notices(reading, place),
        "columns": columns,
        "chart_done": sum(column.done for column in columns),
        "chart_failed": sum(column.failed for column in columns),
        "spans": list(SPANS),
        "stretch": stretch,
        "kiosk": request.GET.get("kiosk") == "1",
    }
    return render(request, place, "cq/pages/overview.html", context)


def tiles(reading: Reading) -> list[Tile]:
    """The six numbers."""
    past = _by_minute(reading)
    return [*_standing(reading, past), *_ending(reading, past), *_waiting(reading, past)]


def _standing(reading: Reading, past: list[Past]) -> list[Tile]:
    live = [worker for worker in reading.workers if worker.is_alive]
    running, slots = sum(len(w.running) for w in live), sum(w.slots for w in live)
    waiting = sum(queue.depth for queue in reading.queues)
    later = sum(queue.later for queue in reading.queues)
    return [
        Tile(
            key="waiting",
            label="waiting now",
            value=capped(waiting),
            note=f"{capped(later)} due later" if later else "nothing due later",
            values=[s.waiting if s else None for _, _, s in past],
        ),
        Tile(
            key="running",
            label="running",
            value=f"{number(running)} / {number(slots)}",
            note=f"{running / slots:.0%} of the slots" if slots else "no worker",
            values=[s.running if s else None for _, _, s in past],
            tone="" if slots else "fail",
        ),
    ]


def _ending(reading: Reading, past: list[Past]) -> list[Tile]:
    done = figures.per_minute(reading.recent, reading.now, minutes=2)
    failed = figures.per_minute(reading.recent, reading.now, minutes=2, failed=True)
    share = f"{failed / done:.1%}" if failed and done else "0%"
    return [
        Tile(
            key="done",
            label="done a minute",
            value=number(round(done, 1)),
            note=f"{number(sum(d for d, _, _ in past))} in the last hour",
            values=[d for d, _, _ in past],
        ),
        Tile(
            key="failed",
            label="failed a minute",
            value=number(round(failed, 1)),
            note=f"{share} of what ends",
            values=[f for _, f, _ in past],
            tone="fail" if failed >= MANY_FAILED * done > 0 else "",
        ),
    ]


def _waiting(reading: Reading, past: list[Past]) -> list[Tile]:
    oldest = min((queue.oldest for queue in reading.queues if queue.oldest), default=None)
    return [
        Tile(
            key="latency",
            label="start latency p95",
            value=span(reading.latency.p95),
            note=f"p50 {span(reading.latency.p50)}, due to started",
            values=[s.latency_p95 if s else None for _, _, s in past],
        ),
        Tile(
            key="oldest",
            label="oldest waiting",
            value=span(int((reading.now - oldest).total_seconds())) if oldest else "–",
            note="since it was due" if oldest else "nothing waits",
            values=[(s.oldest or 0) if s else None for _, _, s in past],
        ),
    ]


def _by_minute(reading: Reading) -> list[Past]:
    """The last hour, minute by minute: ended, of them badly, and the sample if there is one."""
    last = int(reading.now.timestamp() // 60)
    sums: dict[int, list[int]] = {}
    for row in reading.recent:
        found = sums.setdefault(row.minute, [0, 0])
        found[0] += row.done
        found[1] += row.failed
    samples = {sample.minute: sample for sample in reading.samples}
    return [
        (*sums.get(minute, (0, 0)), samples.get(minute))
        for minute in range(last - HOUR + 1, last + 1)
    ]


def chart(reading: Reading, stretch: str) -> list[Column]:
    """What ended over a stretch of time, in at most a hundred columns."""
    length, step = SPANS[stretch]
    rows = reading.recent if length <= HOUR else minutes.tallies(dialect(), length, step=step)
    last = int(reading.now.timestamp() // 60) // step
    sums: dict[int, list[int]] = {}
    for row in rows:
        found = sums.setdefault(row.minute // step, [0, 0])
        found[0] += row.done
        found[1] += row.failed
    columns = []
    for number_ in range(last - length // step + 1, last + 1):
        since = datetime.fromtimestamp(number_ * step * 60, timezone.get_current_timezone())
        label = f"{since:%H:%M}" if length <= 24 * HOUR else f"{since:%d %b %H:%M}"
        columns.append(Column(label, *sums.get(number_, (0, 0))))
    return columns


def strip(worker: WorkerFigure) -> dict[str, Any]:
    """A worker as a row of cells, one for each slot."""
    free = max(worker.slots - len(worker.running), 0) if worker.is_alive else 0
    shown = worker.running[:CELLS]
    room = max(CELLS - len(shown), 0)
    return {
        "worker": worker,
        "running": shown,
        "free": range(min(free, room)),
        "more": max(len(worker.running) - len(shown), 0) + max(free - room, 0),
    }


def notices(reading: Reading, place: Place) -> list[Notice]:
    """What needs attention, the worst first."""
    found = [
        Notice(
            f"dead-{worker.id}",
            "fail",
            f"Worker {worker.name} died; its last heartbeat was {span(int(worker.age))} ago.",
            place.url("workers"),
        )
        for worker in reading.workers
        if worker.state == "dead"
    ]
    live = [worker for worker in reading.workers if worker.is_alive]
    if not live:
        found.append(Notice("none", "fail", "No worker is alive. Start one: cq_runworker."))
    if reading.lost:
        text = f"{number(reading.lost)} task{'s were' * (reading.lost > 1) or ' was'} lost today."
        found.append(Notice("lost", "fail", text, f"{place.tasks}?q=state:lost+parent:any"))
    for queue in reading.queues:
        if live and not queue.workers and (queue.depth or queue.later):
            text = f"No worker listens to {queue.name}, where {capped(queue.depth)} wait."
            url = f"{place.tasks}?q=queue:{queue.name}+state:queue"
            found.append(Notice(f"queue-{queue.name}", "warn", text, url))
    for name in reading.parked:
        text = f"No worker knows {name.func_name}; {capped(name.count)} wait for one that does."
        url = f"{place.tasks}?q=name:{name.func_name}+state:queue+parent:any"
        found.append(Notice(f"parked-{name.func_name}", "warn", text, url))
    for entry in reading.late:
        late = span(int((reading.now - entry.next_run).total_seconds())) if entry.next_run else ""
        url = f"{place.url('repeating')}#entry-{entry.pk}"
        found.append(Notice(f"late-{entry.pk}", "warn", f"{entry.name} is {late} late.", url))
    return found

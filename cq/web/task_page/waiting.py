"""
Why a task is waiting, in one sentence.

Facts about the task, the workers and its queue enter; what leaves is the sentence, empty for
a task that waits for nothing. `facts_of` reads them in at most four statements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Count, Q

from cq.definition.status import ACTIVE, CLAIMABLE, Status
from cq.models import Task, Worker
from cq.models.sql import database

MOST_COUNTED = 1000
SILENT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides when a task goes on."""

    status: Status
    func_name: str = ""
    queue: str = "default"
    attempts: int = 0
    due_in: float = 0.0
    """Seconds until it may start; not above 0: it may."""
    predecessor: tuple[str, Status] | None = None
    children: Mapping[Status, int] = field(default_factory=dict)
    """Open subtasks by status."""
    workers: int = 0
    listening: int = 0
    """Live workers that take the queue."""
    able: int = 0
    """Those of them that know the function."""
    slots: int = 0
    running: int = 0
    """Room on the able workers, and how many tasks they run."""
    ahead: int = 0
    """Tasks of the same queue that are due and come first."""
    silent_for: float = 0.0
    """Seconds since the worker that runs it was heard of."""


def why(facts: Facts) -> str:
    """Say in one sentence what the task waits for; "" when it waits for nothing."""
    match facts.status:
        case Status.PENDING:
            return _why_pending(facts)
        case Status.QUEUED | Status.RETRY:
            return _why_not_started(facts)
        case Status.WAITING:
            return _why_waiting(facts)
        case Status.RUNNING if facts.silent_for > SILENT_SECONDS:
            return (
                f"Its worker has not been heard of for {span(facts.silent_for)}; when it is "
                "found dead, the task is put back."
            )
    return ""


def _why_pending(facts: Facts) -> str:
    if facts.predecessor is None:
        return "It is held: it was made with submit=False and waits for submit()."
    name, status = facts.predecessor
    return f"It starts after {_short(name)} has succeeded, which is {status.label} now."


def _why_not_started(facts: Facts) -> str:
    if facts.due_in > 0:
        when = span(facts.due_in)
        if facts.status is Status.RETRY:
            return f"Attempt {facts.attempts} failed; the next one starts in {when}."
        return f"It is due in {when}."
    if not facts.workers:
        return "No worker is running: start one with manage.py cq_runworker."
    if not facts.listening:
        none = _none_of(facts.workers, "worker", "takes", "does not take")
        return f"{none} the queue {facts.queue!r}."
    if not facts.able:
        on = f"worker on the queue {facts.queue!r}"
        none = _none_of(facts.listening, on, "knows", "does not know")
        code = "it may run" if facts.listening == 1 else "they may run"
        return f"{none} {facts.func_name!r}: {code} older code."
    if facts.running >= facts.slots > 0:
        busy = "The one slot is" if facts.slots == 1 else f"All {facts.slots} slots are"
        return f"{busy} busy{_ahead(facts)}."
    if facts.ahead:
        verb = "comes" if facts.ahead == 1 else "come"
        return (
            f"{_many(facts.ahead)} of the queue {facts.queue!r} {verb} first; "
            f"{_count(facts.running, 'task')} {_are(facts.running)} running."
        )
    return "A worker will take it in a moment."


def _why_waiting(facts: Facts) -> str:
    total = sum(facts.children.values())
    if not total:
        return "Its subtasks are over; its own end follows in a moment."
    parts = [
        f"{count} {status.counted}" for status in Status if (count := facts.children.get(status, 0))
    ]
    return f"It waits for {_count(total, 'subtask')}: {', '.join(parts)}."


def span(seconds: float) -> str:
    """A length of time as people say it: 8 s, 3 m 20 s, 5 h, 2 d."""
    whole = max(1, round(seconds))
    for unit, size, below, name in _UNITS:
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


_UNITS = (("d", 86400, 3600, "h"), ("h", 3600, 60, "m"), ("m", 60, 1, "s"))


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _none_of(number: int, noun: str, verb: str, verb_of_one: str) -> str:
    if number == 1:
        return f"The one {noun} {verb_of_one}"
    first, _, rest = noun.partition(" ")
    return f"None of the {number} {first}s{' ' * bool(rest)}{rest} {verb}"


def _many(number: int) -> str:
    if number >= MOST_COUNTED:
        return f"More than {MOST_COUNTED:,} tasks"
    return _count(number, "task")


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _ahead(facts: Facts) -> str:
    if not facts.ahead:
        return ""
    return f", and {_many(facts.ahead).lower()} {_are(facts.ahead)} ahead"


def facts_of(task: Task, now: datetime) -> Facts:
    """Read what decides when this task goes on; `now` is the database's."""
    status = Status(task.status)
    facts: dict[str, Any] = {
        "status": status,
        "func_name": task.func_name,
        "queue": task.queue,
        "attempts": task.attempts,
        "due_in": (task.run_at - now).total_seconds(),
    }
    if status is Status.PENDING and task.previous_id:
        before = Task.objects.using(database()).filter(pk=task.previous_id)
        row = before.values_list("func_name", "status").first()
        facts["predecessor"] = row and (row[0], Status(row[1]))
    elif status is Status.WAITING:
        facts["children"] = _open_children(task)
    elif status is Status.RUNNING and task.worker is not None:
        facts["silent_for"] = (now - task.worker.beat_at).total_seconds()
    elif status in CLAIMABLE and facts["due_in"] <= 0:
        facts |= _room_for(task, now)
    return Facts(**facts)


def _open_children(task: Task) -> dict[Status, int]:
    rows = Task.objects.using(database()).filter(parent=task.pk, status__in=sorted(ACTIVE))
    counted = rows.values("status").annotate(count=Count("id")).values_list("status", "count")
    return {Status(status): count for status, count in counted}


def _room_for(task: Task, now: datetime) -> dict[str, Any]:
    alias = database()
    alive = list(Worker.objects.using(alias).filter(alive=True))
    listening = [one for one in alive if one.queues is None or task.queue in one.queues]
    able = [one for one in listening if task.func_name in one.names]
    running = Task.objects.using(alias).filter(worker__in=[one.pk for one in able], status="R")
    due = Task.objects.using(alias).filter(
        Q(priority__gt=task.priority) | Q(priority=task.priority, run_at__lt=task.run_at),
        queue=task.queue,
        status__in=sorted(CLAIMABLE),
        parked=False,
        run_at__lte=now,
    )
    return {
        "workers": len(alive),
        "listening": len(listening),
        "able": len(able),
        "slots": sum(one.slots for one in able),
        "running": running.count() if able else 0,
        "ahead": due[:MOST_COUNTED].count(),
    }

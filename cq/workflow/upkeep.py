"""
Upkeep on demand: the rounds that workers make by themselves, done now and to the end.

For the built-in tasks and the historic commands. Every step works in short transactions of
its own and may be called by anybody at any time.
"""

from collections.abc import Callable

from django.db.models.functions import Now

from cq.definition.status import CLAIMABLE
from cq.models.queries import database
from cq.models.task import Task
from cq.workflow.aftermath import Aftermath
from cq.workflow.rescue import end_overdue, park_unroutable, rescue_tasks
from cq.workflow.retention import BATCH, clear_orphans, prune

RUNG_AT_ONCE = 1000


def ring_due(limit: int = RUNG_AT_ONCE) -> int:
    """
    Ring the workers for tasks that are due, retries among them; return how many.

    They find such rows by themselves within a poll, so this only wakes them sooner.
    """
    due = Task.objects.using(database()).filter(
        status__in=sorted(CLAIMABLE), parked=False, run_at__lte=Now()
    )
    aftermath = Aftermath()
    count = 0
    for queue, id in due.order_by("run_at").values_list("queue", "id")[:limit]:
        aftermath.ring(queue, [id])
        count += 1
    aftermath.tell_after_commit()
    return count


def exhaust(step: Callable[[], int], tell: Callable[[int], object] = lambda total: None) -> int:
    """Repeat a batch until it finds less than a batch; `tell` hears the total after each."""
    total = 0
    while True:
        done = step()
        total += done
        tell(total)
        if done < BATCH:
            return total


def maintain() -> dict[str, int]:
    """Do everything once; return the number of rows that each round touched."""
    return {
        "rescued": rescue_tasks(),
        "overdue": end_overdue(),
        "parked": park_unroutable(),
        "rung": ring_due(),
        "pruned": exhaust(prune),
        "orphans": exhaust(clear_orphans),
    }

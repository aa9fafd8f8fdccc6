"""
cq_maintenance: delete ended tasks now, or let a worker do the whole round.

Without a flag that names tasks, the built-in task `maintenance` is enqueued. With one, the
trees of those states are deleted here, in batches, whatever time they had left. Only trees
that have ended as a whole go; `--pending` revokes first.
"""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from cq.definition.status import Status
from cq.management.base import TaskCommand, within
from cq.models import Task
from cq.models.queries import database
from cq.models.repeating import database_now
from cq.tasks import maintenance
from cq.workflow.retention import BATCH, clear, count_clearable
from cq.workflow.upkeep import exhaust

STATES = {
    "clear": (Status.SUCCESS,),
    "failed": (Status.FAILURE, Status.INCOMPLETE, Status.REVOKED),
    "lost": (Status.LOST,),
}
UNSTARTED = (Status.PENDING, Status.QUEUED, Status.RETRY)


class Command(TaskCommand):
    """Delete what the flags name, or enqueue the round of housekeeping."""

    help = "Delete ended tasks by state and age, or enqueue the maintenance task."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--clear", action="store_true", help="delete successful trees")
        parser.add_argument(
            "--failed", action="store_true", help="delete failed, incomplete and revoked trees"
        )
        parser.add_argument("--lost", action="store_true", help="delete lost trees")
        parser.add_argument(
            "--pending", action="store_true", help="revoke and delete what has not started"
        )
        parser.add_argument(
            "--prior", type=float, default=0, metavar="DAYS", help="only what is older (default 0)"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would go")

    def handle(self, **options: Any) -> None:
        within("--prior", options["prior"], 0, 36500, "an age in days")
        before = database_now(database()) - timedelta(days=options["prior"])
        statuses = [status for name, some in STATES.items() if options[name] for status in some]
        if options["pending"]:
            self.revoke_unstarted(before, is_dry=options["dry_run"])
            statuses += [Status.REVOKED] if Status.REVOKED not in statuses else []
        elif not statuses:
            self.enqueue(is_dry=options["dry_run"])
            return
        if options["dry_run"]:
            self.stdout.write(f"{count_clearable(statuses, before)} trees would be deleted.")
            return
        gone = exhaust(lambda: clear(statuses, before, BATCH))
        self.stdout.write(f"{gone} rows deleted.")

    def enqueue(self, *, is_dry: bool) -> None:
        if is_dry:
            self.stdout.write("The maintenance task would be enqueued.")
        else:
            self.stdout.write(f"Enqueued {maintenance.delay().id}.")

    def revoke_unstarted(self, before: Any, *, is_dry: bool) -> None:
        waiting = Task.objects.using(database()).roots()
        waiting = waiting.filter(status__in=[s.value for s in UNSTARTED], submitted__lt=before)
        if is_dry:
            self.stdout.write(f"{waiting.count()} tasks would be revoked.")
            return
        revoked = 0
        for task in waiting.only("id").iterator(chunk_size=BATCH):
            task.revoke()
            revoked += 1
        self.stdout.write(f"{revoked} tasks revoked.")

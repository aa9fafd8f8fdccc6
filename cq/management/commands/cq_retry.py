"""
cq_retry: run failed tasks again, or wake the workers for those that are due.

With ids, each of these ended tasks is queued again, or with `--failed-only` what failed below
them. Without, the workers are rung for
everything that is due, retries among it, as in 2019; they would find it by themselves.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from cq.errors import CQError
from cq.management.base import TaskCommand
from cq.terminal.finding import find_task
from cq.workflow.upkeep import ring_due


class Command(TaskCommand):
    """Retry tasks by id, or wake the workers for what is due."""

    help = "Retry the tasks with these ids, or ring the workers for all that are due."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "ids", nargs="*", metavar="ID", help="tasks to retry; an id may be cut short"
        )
        parser.add_argument(
            "--failed-only",
            action="store_true",
            help="run again only what failed below them; what has succeeded stays",
        )

    def handle(self, **options: Any) -> None:
        failed_only = options["failed_only"]
        if not options["ids"]:
            if failed_only:
                raise CommandError(
                    "--failed-only got no id. Expected those of Incomplete tasks. "
                    "Write for example cq_retry --failed-only 01a1fbea."
                )
            self.stdout.write(f"Rang for {ring_due()} due tasks.")
            return
        refused = 0
        for id in options["ids"]:
            try:
                task = find_task(id)
                task.retry(failed_only=failed_only)
            except CQError as error:
                refused += 1
                self.stderr.write(str(error))
            else:
                self.stdout.write(
                    f"Queued {'what failed below ' if failed_only else ''}{task.id} again."
                )
        if refused:
            raise CommandError(f"{refused} of {len(options['ids'])} tasks were not retried.")

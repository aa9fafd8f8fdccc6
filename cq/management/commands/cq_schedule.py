"""
cq_schedule: the repeating tasks on the command line.

`list` shows every entry, `next` the runs that come next, `run NAME` starts one now, and
`enable` and `disable` switch entries. Times are shown in each entry's own zone.
"""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from cq.definition.crontab import Crontab, zone
from cq.management.base import TaskCommand, within
from cq.models import RepeatingTask
from cq.models.queries import database
from cq.models.repeating import database_now
from cq.workflow.schedule import problem_of

VERBS = ("list", "next", "run", "enable", "disable")


class Command(TaskCommand):
    """List repeating tasks, show their next runs, run or switch one."""

    help = "List the repeating tasks, show their next runs, run or switch one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=VERBS, nargs="?", default="list")
        parser.add_argument("names", nargs="*", metavar="NAME", help="entries (default: all)")
        parser.add_argument("-n", type=int, default=5, help="runs that `next` shows (default 5)")

    def handle(self, **options: Any) -> None:
        entries = self.find(options["names"])
        verb = options["verb"]
        if verb in ("run", "enable", "disable") and not options["names"]:
            raise CommandError(f"cq_schedule {verb} needs the name of an entry. See cq_schedule.")
        if verb == "next":
            within("-n", options["n"], 1, 1000, "a number of runs")
            self.show_next(entries, options["n"])
            return
        for entry in entries:
            self.stdout.write(getattr(self, f"{verb}_one")(entry))

    def find(self, names: list[str]) -> list[RepeatingTask]:
        entries = RepeatingTask.objects.using(database()).order_by("name")
        if not names:
            return list(entries)
        found = {entry.name: entry for entry in entries.filter(name__in=names)}
        for name in names:
            if name not in found:
                raise CommandError(
                    f"There is no repeating task {name!r}. Give a name as cq_schedule shows it."
                )
        return [found[name] for name in names]

    def list_one(self, entry: RepeatingTask) -> str:
        problem = problem_of(entry)
        if problem:
            state = f"cannot run: {problem}"
        elif not entry.enabled or entry.next_run is None:
            state = "disabled" if not entry.enabled else "not yet scheduled"
        else:
            words = Crontab.parse(entry.crontab).words()
            state = f"{words}; next {_local(entry.next_run, entry.timezone)}"
        return f"{entry.name}\n    {state}"

    def show_next(self, entries: list[RepeatingTask], n: int) -> None:
        now = database_now(database())
        runs = [
            (run, entry)
            for entry in entries
            if entry.enabled and not problem_of(entry)
            for run in Crontab.parse(entry.crontab).preview(now, zone(entry.timezone), n)
        ]
        for run, entry in sorted(runs, key=lambda pair: (pair[0], pair[1].name))[:n]:
            self.stdout.write(f"{_local(run, entry.timezone)}  {entry.name}")

    def run_one(self, entry: RepeatingTask) -> str:
        task = entry.submit()
        if task is None:
            return f"{entry.name} has not ended its last run; nothing was started."
        return f"{entry.name} runs as task {task.id}."

    def enable_one(self, entry: RepeatingTask) -> str:
        entry.enabled = True
        entry.save()
        return f"{entry.name} is enabled."

    def disable_one(self, entry: RepeatingTask) -> str:
        entry.enabled = False
        entry.save()
        return f"{entry.name} is disabled."


def _local(moment: datetime, name: str) -> str:
    return f"{moment.astimezone(zone(name)):%a %Y-%m-%d %H:%M %Z}"

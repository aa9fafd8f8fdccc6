"""
cq_check: compare counters, statuses and records with the rows they are made of.

Safe beside running workers: what it reports has been seen twice. Exit code 1 if anything
is found; `--repair` mends it, and then the code says whether something is left.
"""

import sys
from argparse import ArgumentParser
from typing import Any

from cq.management.base import TaskCommand, within
from cq.models.discrepancies import BY_NAME, MANY
from cq.workflow.checker import INSTANT_SECONDS, Report, check, repair

SHOWN = 10


class Command(TaskCommand):
    """Find rows that contradict each other; `--repair` mends them."""

    help = "Compare counters, statuses and records with the rows they are made of."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--repair", action="store_true", help="mend what is found")
        parser.add_argument(
            "--instant",
            type=float,
            default=INSTANT_SECONDS,
            metavar="SECONDS",
            help=f"the time between the two looks ({INSTANT_SECONDS:g})",
        )

    def handle(self, **options: Any) -> None:
        instant = options["instant"]
        within("--instant", instant, 0, 3600, "seconds")
        report = check(instant=instant)
        self.show(report)
        if report and options["repair"]:
            left = repair(report, instant=instant)
            self.stdout.write("Repaired." if not left else "Repaired what can be. Left:")
            report = left
            if report:
                self.show(report)
        if report:
            sys.exit(1)

    def show(self, report: Report) -> None:
        """Print what was found, rule by rule."""
        if not report:
            self.stdout.write("All rows agree.")
        for name, count in report.counts.items():
            rule = BY_NAME[name]
            many = f"{MANY} or more" if count >= MANY else str(count)
            self.stdout.write(self.style.ERROR(f"{rule.says}: {many} not so."))
            rows = [one for one in report.found if one.rule == name]
            for one in rows[:SHOWN]:
                self.stdout.write(f"  {one.id} keeps {one.kept}, found {one.found}")
            if count > SHOWN:
                self.stdout.write(f"  and {count - SHOWN} more")
            if rule.advice:
                self.stdout.write(f"  {rule.advice}")

"""
cq_load_test: grow many small trees on the running workers, and check every one of them.

Each trunk has async, sync, atomic and retried leaves and a chain; every fifth has a leaf
that fails. With `--lost`, one more trunk has a leaf whose process dies. The command waits,
compares every tree with what must come of it, prints the timing, and fails on a difference.
"""

import time
from argparse import ArgumentParser
from statistics import median
from typing import Any

from django.core.management.base import CommandError

from cq.definition.status import TERMINAL, Status
from cq.management.base import TaskCommand, within
from cq.models import Task
from cq.models.queries import database
from cq.tasks import load_trunk
from cq.workflow.results import wait

LEAVES = 7  # five leaves, and the two links of the chain


class Command(TaskCommand):
    """Grow trees on the running workers and compare them with what must come of them."""

    help = "Run a mixed load on the workers and check its outcome."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--trunks", type=int, default=50, help="trees to grow (default 50)")
        parser.add_argument("--lost", action="store_true", help="one tree loses a process")
        parser.add_argument("--timeout", type=float, default=120, help="seconds (default 120)")

    def handle(self, **options: Any) -> None:
        within("--trunks", options["trunks"], 1, 100_000, "a number of trees")
        within("--timeout", options["timeout"], 1, 86400, "seconds")
        modes = {number: "fail" if number % 5 == 4 else "" for number in range(options["trunks"])}
        if options["lost"]:
            modes[len(modes)] = "lost"
        began = time.perf_counter()
        trunks = load_trunk.delay_many([((number, mode), {}) for number, mode in modes.items()])
        enqueued = time.perf_counter() - began
        for trunk in trunks:
            left = options["timeout"] - (time.perf_counter() - began)
            wait(trunk, max(left, 0.001))
        seconds = time.perf_counter() - began
        wrong = [
            problem
            for trunk, mode in zip(trunks, modes.values(), strict=True)
            for problem in check_tree(trunk, mode)
        ]
        self.report(trunks, enqueued, seconds)
        if wrong:
            raise CommandError("\n".join(wrong))
        self.stdout.write("Every tree is as it must be.")

    def report(self, trunks: list[Task], enqueued: float, seconds: float) -> None:
        rows = Task.objects.using(database()).filter(root__in=[trunk.pk for trunk in trunks])
        times = list(rows.values_list("run_at", "started"))
        waits = [(started - run_at).total_seconds() for run_at, started in times if started]
        count = len(times) + len(trunks)
        self.stdout.write(
            f"{count} tasks in {seconds:.2f} s ({count / seconds:.0f}/s), {len(trunks)} enqueued "
            f"in {enqueued * 1000:.0f} ms, due to started {median(waits or [0]) * 1000:.1f} ms "
            "(median)."
        )


def check_tree(trunk: Task, mode: str) -> list[str]:
    """Compare one tree with what must come of it; return a sentence for each difference."""
    wanted = Status.INCOMPLETE if mode else Status.SUCCESS
    problems = []
    if trunk.status != wanted:
        problems.append(f"Trunk {trunk.pk} is {trunk.status}, not {wanted}.")
    number = trunk.args[0]
    if not mode and trunk.result != 2 * (number + 1):
        problems.append(f"Trunk {trunk.pk} gave {trunk.result!r}, not {2 * (number + 1)}.")
    tree = Task.objects.using(database()).filter(root=trunk.pk)
    statuses = list(tree.values_list("status", flat=True))
    odd = [Status(status) for status in statuses if status != Status.SUCCESS]
    expected = {"": [], "fail": [Status.FAILURE], "lost": [Status.LOST]}[mode]
    if odd != expected or len(statuses) != LEAVES + bool(mode):
        problems.append(f"The tree of {trunk.pk} has {len(statuses)} tasks, {odd} among them.")
    if any(Status(status) not in TERMINAL for status in statuses):
        problems.append(f"The tree of {trunk.pk} has not ended.")
    return problems

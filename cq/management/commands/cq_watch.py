"""
`manage.py cq_watch ID`: the tree of one task and its log, live, in a terminal.

It reads the rows and nothing else, so it works from any machine that reaches the database,
and never disturbs the task. Exit codes: 0 success, 1 failure, 2 revoked, 3 nothing to
watch, 124 timeout, 130 Ctrl-C.
"""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from cq.definition.options import CENTURY
from cq.errors import CQError
from cq.management.base import TaskCommand, within
from cq.terminal.display import display_on
from cq.terminal.finding import find_task
from cq.terminal.following import Follower, WatchCode
from cq.terminal.watching import watch


class Command(TaskCommand):
    """Watch one task until it, and everything it carries, has ended."""

    help = "Watch a task: its tree with bars, its log lines as they are recorded."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="the id of the task, or as much of it as names only one")
        parser.add_argument("--timeout", type=float, help="give up after so many seconds, with 124")
        parser.add_argument(
            "--since", type=int, help="the lines after this number (default: the last 1000)"
        )
        parser.add_argument("--plain", action="store_true", help="plain lines on a terminal, too")

    def handle(self, **options: Any) -> None:
        for name, most, unit in (("since", 2**63 - 1, "a number"), ("timeout", CENTURY, "seconds")):
            if options[name] is not None:
                within(f"--{name}", options[name], 0, most, unit, code=WatchCode.NOT_FOUND)
        try:
            task = find_task(options["id"])
        except CQError as error:
            raise CommandError(str(error), returncode=WatchCode.NOT_FOUND) from error
        display = display_on(self.stdout, plain=options["plain"])
        code = watch(task, Follower(task, options["since"]), display, options["timeout"])
        if code:
            sys.exit(int(code))

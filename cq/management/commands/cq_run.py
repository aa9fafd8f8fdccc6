"""
`manage.py cq_run NAME '{"page": 1}'`: enqueue a task, and with `--wait` watch it to its end.

Without `--wait` it prints the id alone, for a script to keep. With it the result is the
last line, and the exit codes are those of `cq_watch`.
"""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from cq.decorators import delay
from cq.definition.options import CENTURY
from cq.errors import CQError
from cq.management.base import TaskCommand, within
from cq.models import Task
from cq.terminal.display import display_on
from cq.terminal.following import Follower, WatchCode
from cq.terminal.starting import arguments_of, function_named
from cq.terminal.text import printable
from cq.terminal.watching import watch


class Command(TaskCommand):
    """Start a task by its name."""

    help = "Enqueue a task by name, with JSON arguments; --wait watches it and prints its result."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a registered name, or its last part if only one has it")
        parser.add_argument("arguments", nargs="*", help="JSON; an object at the end has names")
        parser.add_argument("--wait", action="store_true", help="watch it, and print its result")
        parser.add_argument("--timeout", type=float, help="wait no longer than so many seconds")
        parser.add_argument("-Q", "--queue", help="the queue (default: that of the task)")
        parser.add_argument("--priority", type=int, help="-100 to 100 (default: the task's)")

    def handle(self, **options: Any) -> None:
        timeout = options["timeout"]
        if timeout is not None:
            within("--timeout", timeout, 0, CENTURY, "seconds", code=WatchCode.NOT_FOUND)
        given = {name: options[name] for name in ("queue", "priority") if options[name] is not None}
        try:
            args, kwargs = arguments_of(options["arguments"])
            task = delay(function_named(options["name"]), args, kwargs, **given)
        except CQError as error:
            raise CommandError(str(error), returncode=WatchCode.NOT_FOUND) from error
        if not options["wait"]:
            self.stdout.write(str(task.id))
            return
        # The result goes out alone, for whoever reads it; what is watched goes beside it.
        code = watch(task, Follower(task), display_on(self.stderr), timeout)
        if code is WatchCode.SUCCESS:
            task.refresh_from_db()
            self.show(task)
        else:
            sys.exit(int(code))

    def show(self, task: Task) -> None:
        """Print the result."""
        self.stdout.write(printable(json.dumps(task.result, ensure_ascii=False)))

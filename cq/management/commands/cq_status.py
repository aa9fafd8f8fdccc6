"""
`manage.py cq_status`: queues, workers, rates, and what runs.

Exit code 1 when something is due that no live worker serves, so that a monitor needs no
more than this. `--json` writes the same as one object, `--watch` again and again until
Ctrl-C: drawn over on a terminal, one after the other elsewhere.
"""

import json
import sys
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error

from cq.management.base import TaskCommand, within
from cq.terminal.following import drop_connection
from cq.terminal.situation import Situation, look, text_of
from cq.terminal.text import one_line

_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


class Command(TaskCommand):
    """Show how the tasks stand."""

    help = "Show queues, workers and rates; exit with 1 when due work has no live worker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="write one JSON object a look")
        parser.add_argument("--watch", action="store_true", help="look again until Ctrl-C")
        parser.add_argument(
            "--interval", type=float, default=2.0, help="seconds between two looks (2)"
        )

    def handle(self, **options: Any) -> None:
        within("--interval", options["interval"], 0.1, 3600, "seconds")
        pause = threading.Event()
        found: Situation | None = None
        try:
            while True:
                found = self.show(options["json"], options["watch"]) or found
                if not options["watch"]:
                    break
                pause.wait(options["interval"])
        except KeyboardInterrupt:
            pass
        if found is not None and not found.is_served:
            sys.exit(1)

    def show(self, as_json: bool, again: bool) -> Situation | None:
        """Look and write; while watching, an outage of the database is only told."""
        try:
            found = look()
        except Error as problem:
            if not again:
                raise
            drop_connection()
            self.stderr.write(f"The database does not answer: {one_line(str(problem))}")
            return None
        if as_json:
            self.stdout.write(json.dumps(found.as_json(), cls=DjangoJSONEncoder))
        elif again and self.stdout.isatty():
            self.stdout.write(f"{_HOME_AND_CLEAR}{text_of(found)}")
        else:
            self.stdout.write(text_of(found) + ("\n" if again else ""))
        self.stdout.flush()
        return found

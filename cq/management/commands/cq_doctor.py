"""
`manage.py cq_doctor`: a round trip through database, layers, worker and socket.

Each part is shown with the time it took, or with what is broken and what to do; exit code
1 when something is. Without `--url` the socket is asked in this process, so that the
application is examined, but not the server and the proxy before it.
"""

import sys
from argparse import ArgumentParser
from typing import Any

from cq.definition.options import check_queue
from cq.management.base import TaskCommand, within
from cq.terminal.doctor import BROKEN, NOTE, OK, Doctor, Finding


class Command(TaskCommand):
    """Examine every part that a task passes on its way to a page."""

    # A wrong setting is what one comes to the doctor with.
    requires_system_checks = ()
    help = "Send a task through database, layer, worker and socket, and say what is broken."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-Q", "--queue", default="default", help="the queue to send a task to")
        parser.add_argument(
            "--timeout", type=float, default=10.0, help="seconds to wait for each part (10)"
        )
        parser.add_argument("--url", default="", help="ask the socket of the site at this address")

    def handle(self, **options: Any) -> None:
        within("--timeout", options["timeout"], 0.1, 3600, "seconds")
        check_queue(options["queue"])
        doctor = Doctor(**{name: options[name] for name in ("queue", "timeout", "url")})
        broken = [self.show(found) for found in doctor.examine()].count(BROKEN)
        if broken:
            self.stdout.write(f"{broken} part(s) broken.")
            sys.exit(1)
        self.stdout.write("All is well.")

    def show(self, found: Finding) -> str:
        """Print one finding and return its state."""
        took = "" if found.seconds is None else f"{found.seconds * 1000:.0f} ms"
        styles = {OK: self.style.SUCCESS, NOTE: self.style.WARNING, BROKEN: self.style.ERROR}
        state = styles.get(found.state, str)(f"{found.state:<7}")
        self.stdout.write(f"{found.part:<9} {state} {took:>8}  {found.text}")
        if found.remedy:
            self.stdout.write(f"{'':<28}{found.remedy}")
        self.stdout.flush()
        return found.state

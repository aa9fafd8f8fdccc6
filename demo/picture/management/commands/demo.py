"""
`manage.py demo`: prepare the demo and serve it on one event loop until Ctrl-C.

Pages, sockets and tasks share the loop. At Ctrl-C running tasks get a moment to end; what
does not end, and what has not begun, goes on at the next start.
"""

import secrets
from typing import Any

from config.asgi import site
from daphne.server import Server, twisted_loop
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cq.worker.embedded import embedded_worker, stop_on_signal


class Command(BaseCommand):
    """Migrate, make a demo admin, serve."""

    help = "Prepares the demo and serves it, with its worker, until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=0, help="by default any free port")

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        self.serve(port, demo_admin())
        self.stdout.write("\nThe demo has ended.")

    def serve(self, port: int, password: str) -> None:
        """Serve on the loopback address; return after Ctrl-C."""

        def ready() -> None:
            if server.listening_addresses:
                self.announce(*server.listening_addresses[0], password)
                twisted_loop.call_soon(begin)

        def begin() -> None:
            stop_on_signal(server.stop)
            # At once, not with the first visitor: the heartbeat beats without one. And once:
            # a visitor who comes while the worker drains must not start another.
            embedded_worker.ensure_started()

        server = Server(
            site,
            endpoints=[f"tcp:port={port}:interface=127.0.0.1"],
            signal_handlers=False,
            ready_callable=ready,
        )
        server.run()
        if not server.listening_addresses:
            raise CommandError(
                f"Port {port} cannot be used; name another one, or none for any free port."
            )

    def announce(self, host: str, port: int, password: str) -> None:
        """Print where the demo is and how to enter its admin."""
        url = f"http://{host}:{port}/"
        self.stdout.write(
            f"\n  Mosaic   {url}"
            f"\n  Admin    {url}admin/   user admin   password {password}"
            "\n\nCtrl-C ends it.\n"
        )
        self.stdout.flush()


def demo_admin() -> str:
    """Give the demo admin a new password and return it."""
    password = secrets.token_urlsafe(9)
    admin, _ = get_user_model().objects.get_or_create(
        username="admin", defaults={"is_staff": True, "is_superuser": True}
    )
    admin.set_password(password)
    admin.save()
    return password

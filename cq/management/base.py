"""
What the commands of cq share: what is wrong is said in one sentence, never by a traceback.

`--traceback`, which Django gives to every command, still shows where it came from.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from cq.errors import CQError
from cq.terminal.reaching import obstacle_of
from cq.worker.exit_codes import ExitCode


class TaskCommand(BaseCommand):
    """
    A command that needs the tasks.

    It ends with 3 when the database does not answer and with 4 when it lacks migrations, as
    the worker does, with 2 for an impossible option, and with 1 for what cq refuses.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, and turn what cq and the database refuse into a CommandError."""
        try:
            return super().execute(*args, **options)
        except CQError as error:
            raise CommandError(str(error)) from error
        except Error as problem:
            obstacle = obstacle_of(problem)
            if obstacle is None:
                raise
            raise CommandError(obstacle.text, returncode=obstacle.code) from problem


def within(
    name: str, value: float, least: float, most: float, unit: str, *, code: int = ExitCode.USAGE
) -> None:
    """Refuse the value of an option that is out of its range, or no number at all."""
    if not least <= value <= most:
        raise CommandError(
            f"{name} is {value:g}. Expected {unit} from {least:g} to {most:.12g}. "
            f"Write for example {name} {max(least, min(most, 10)):g}.",
            returncode=code,
        )

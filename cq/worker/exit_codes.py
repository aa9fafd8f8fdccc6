"""What a worker says to its process manager when it ends."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of cq_runworker, with and without `-p`."""

    CLEAN = 0
    """Stopped in order, or `--burst` found nothing more to do."""
    CRASH = 1
    """Ended by an error of its own."""
    USAGE = 2
    """Bad arguments or a failed system check: starting it again cannot help."""
    UNREACHABLE = 3
    """The database or the layer did not answer at start, after retries."""
    MIGRATIONS = 4
    """The database lacks migrations."""
    CRASH_LOOP = 5
    """Its processes died again and again."""
    FORCED = 6
    """Stopped by force; unfinished work was handed back."""

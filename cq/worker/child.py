"""
The child's side of `cq_runworker -p N`, and how one is started.

A child is the same command run again, never a fork, with its number in the environment.
Its standard input is a pipe that the supervisor holds open: when it closes, however the
supervisor died, the child drains and ends.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from cq.errors import InvalidOption

COMMAND = "cq_runworker"
NUMBER = "CQ_WORKER_CHILD"


def is_child() -> bool:
    """Whether this process runs under a supervisor of ours, and must not start one."""
    return NUMBER in os.environ


def child_number() -> int:
    """Which of its supervisor's processes this one is, from 0; 0 without a supervisor."""
    return int(os.environ.get(NUMBER, "0"))


def own_command() -> list[str]:
    """
    The command line that started this process, for starting it again.

    Raises InvalidOption when the command was called from within another program, whose
    line would start that program instead.
    """
    line = list(sys.orig_argv)
    if COMMAND not in line:
        raise InvalidOption(
            f"The command {' '.join(line)!r} does not name {COMMAND}, so it cannot be run again "
            "for each of several processes. Expected ./manage.py cq_runworker -p N. "
            "Run it from a shell, or leave out -p.",
        )
    return [sys.executable, *line[1:]]


def start_child(argv: Sequence[str], number: int) -> subprocess.Popen[bytes]:
    """Start one child, tied to this process by its standard input."""
    return subprocess.Popen(
        [*argv],
        env={**os.environ, NUMBER: str(number)},
        stdin=subprocess.PIPE,
    )


def signal_child(process: subprocess.Popen[bytes], name: str) -> None:
    """Pass a signal on; where there are none, an end of input asks the child to drain."""
    if os.name == "posix":
        process.send_signal(getattr(signal, name))
    elif process.stdin:
        process.stdin.close()


def watch_supervisor(on_gone: Callable[[], object]) -> None:
    """Call `on_gone` from a thread when the supervisor has died; does nothing without one."""
    if not is_child():
        return

    def wait() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:  # closed by somebody in this process: nobody is left to tell
            return
        on_gone()

    threading.Thread(target=wait, name="cq-supervisor-watch", daemon=True).start()

"""
The main program of a child of the process pool: `python -m cq.worker.process_child`.

It loads the project and hands its channel to `child_loop`. What bodies print goes to
standard error, so that the answers stay alone on theirs. A signal sent to a whole group
(Ctrl-C in a terminal, a process manager) is its parent's to answer.
"""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

import django


def main() -> None:
    """Load the project, say so, and serve until the input closes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            # Handlers, not SIG_IGN: what a body starts must not inherit deafness.
            signal.signal(getattr(signal, name), _leave_to_parent)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    django.setup()
    # Its imports need the models, which are only now there.
    serve = import_module("cq.worker.child_loop").serve
    answers.write("ready\n")
    serve(sys.stdin, answers)


def _leave_to_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()

"""
The main program of a child of the process pool: `python -m cq.worker.process_child`.

It loads the project and hands its channel to `child_loop`. What bodies print goes to
standard error, so that the answers stay alone on theirs.
"""

import os
import sys
from importlib import import_module

import django


def main() -> None:
    """Load the project, say so, and serve until the input closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    django.setup()
    # Its imports need the models, which are only now there.
    serve = import_module("cq.worker.child_loop").serve
    answers.write("ready\n")
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()

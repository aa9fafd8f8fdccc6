"""
The loop of a child process: claimed tasks in, completed under their tokens, answers out.

One line of JSON per task on the input, one line per task on the output. It ends when its
parent does: the input closes.
"""

import json
import threading
from typing import IO
from uuid import UUID

from django.db import close_old_connections

from cq import conf
from cq.definition import registry
from cq.execution.here import run_here
from cq.models.transitions import Claimed
from cq.workflow.recording import Recorder

_UUIDS = ("id", "token", "root", "parent", "previous")


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Run the tasks of the lines, and answer each."""
    recorder = Recorder(conf.current().max_lines)
    stopping = threading.Event()
    flusher = threading.Thread(target=_flush, args=(recorder, stopping), daemon=True)
    flusher.start()
    for line in requests:
        values = json.loads(line)
        for name in _UUIDS:
            values[name] = UUID(values[name]) if values[name] else None
        claimed = Claimed(**values)
        close_old_connections()
        run_here(claimed, registry.lookup(claimed.func_name), recorder)
        close_old_connections()
        answers.write("done\n")
    stopping.set()


def _flush(recorder: Recorder, stopping: threading.Event) -> None:
    while not stopping.wait(conf.current().log_flush):
        if recorder.is_dirty:
            recorder.flush()

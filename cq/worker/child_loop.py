"""
The loop of a child process: claimed tasks in, completed under their tokens, answers out.

One line of JSON per task on the input, one word per task on the output. When the input
closes the parent has gone, or wants it so: the child ends at once, in the middle of a body
if need be, since others will run the task again.
"""

import itertools
import json
import logging
import os
import queue
import threading
from typing import IO, Any
from uuid import UUID

from django.db import Error

from cq import conf
from cq.aio import kept_sessions
from cq.definition import registry
from cq.definition.signature import TaskFunctionLike
from cq.execution.here import attempt_here, complete_here
from cq.execution.invocation import failed
from cq.failpoints import reached
from cq.models.transitions import Claimed
from cq.progress import publisher
from cq.workflow.completion import Completion
from cq.workflow.recording import Recorder

logger = logging.getLogger("cq.worker")

_LONGEST_PAUSE = 2.0
_UUIDS = ("id", "token", "root", "parent", "previous")


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Run the tasks of the lines, and answer each; never returns."""
    recorder = Recorder(conf.current().max_lines)
    tasks: queue.SimpleQueue[Claimed] = queue.SimpleQueue()
    for target, args in ((_read, (requests, tasks)), (_flush_for_ever, (recorder,))):
        threading.Thread(target=target, args=args, daemon=True).start()
    while True:
        claimed = tasks.get()
        function = registry.lookup(claimed.func_name)
        with kept_sessions():
            reached("before_body", [claimed])
            completion = _attempt(claimed, function, recorder)
            reached("after_body", [claimed])
        if completion is not None:
            _complete(completion)
        _flush(recorder)  # the last progress: this process may be ended as soon as it answers
        reached("before_answer", [claimed])
        answers.write("done\n")


def _attempt(claimed: Claimed, function: TaskFunctionLike, recorder: Recorder) -> Completion | None:
    try:
        return attempt_here(claimed, function, recorder)
    except KeyboardInterrupt as problem:  # raised by the body: signals do nothing here
        return Completion(claimed, failed(function, claimed, problem))


def _complete(completion: Completion) -> None:
    """Write what the attempt came to, however long the database is away."""
    pause = threading.Event()
    for number in itertools.count():
        try:
            with kept_sessions():
                complete_here(completion)
            return
        except Error as problem:
            if number == 0:
                logger.warning("A completion waits for the database: %s", problem)
            pause.wait(min(_LONGEST_PAUSE, 0.05 * 2 ** min(number, 10)))


def _parsed(values: dict[str, Any]) -> Claimed:
    for name in _UUIDS:
        values[name] = UUID(values[name]) if values[name] else None
    return Claimed(**values)


def _read(requests: IO[str], tasks: "queue.SimpleQueue[Claimed]") -> None:
    for line in requests:
        words = json.loads(line)
        if "task" in words:
            tasks.put(_parsed(words["task"]))
        else:
            publisher.audience(words["audience"])
    logging.shutdown()
    os._exit(0)


def _flush_for_ever(recorder: Recorder) -> None:
    pause = threading.Event()
    while not pause.wait(conf.current().log_flush):
        _flush(recorder)


def _flush(recorder: Recorder) -> None:
    if recorder.is_dirty:
        try:
            with kept_sessions():
                recorder.flush()
        except Error as problem:
            logger.warning("Log lines wait for the database: %s", problem)

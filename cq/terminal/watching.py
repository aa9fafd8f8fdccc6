"""
One watch from its first line to its last: look, show, wait, and say how it ended.

Enters: a task, its follower and a display. Leaves: the code for the shell. An outage of
the database is told once and outlived; Ctrl-C ends the watch and leaves the task alone.
"""

import threading
import time

from django.db import Error

from cq.errors import CQError
from cq.models import Task
from cq.terminal.display import Display
from cq.terminal.finding import page_of
from cq.terminal.following import Follower, Look, Pace, WatchCode, drop_connection, error_of
from cq.terminal.text import duration, one_line

_ENDS = {
    WatchCode.SUCCESS: "has succeeded",
    WatchCode.FAILURE: "has failed",
    WatchCode.REVOKED: "was revoked",
}


def watch(task: Task, follower: Follower, display: Display, timeout: float | None) -> WatchCode:
    """Show a task until it has ended, the time is over, or somebody presses Ctrl-C."""
    if page := page_of(task):
        display.say(page)
    began = time.monotonic()
    try:
        code = _watch(follower, display, None if timeout is None else began + timeout)
    except KeyboardInterrupt:
        code = WatchCode.INTERRUPTED
    except CQError as error:
        display.say(str(error))
        code = WatchCode.NOT_FOUND
    finally:
        display.close()
    name = f"{one_line(task.func_name, 60)} {task.id}"
    if code in _ENDS:
        display.say(f"{name} {_ENDS[code]}; watched for {duration(time.monotonic() - began)}.")
    elif code is not WatchCode.NOT_FOUND:
        display.say(
            f"{name} goes on. Watch it again with: "
            f"manage.py cq_watch {task.id} --since {follower.since}"
        )
    return code


def _watch(follower: Follower, display: Display, until: float | None) -> WatchCode:
    pace, clock = Pace(), threading.Event()
    before: Look | None = None
    is_out = False
    while True:
        pace.begin()
        has_news = False
        try:
            look = follower.look()
            display.show_lines(look.lines)
            display.show_tree(look.tree)
            has_news = bool(look.lines) or before is None or before.tree != look.tree
            before, is_out = look, False
            if look.code is not None:
                if look.failed is not None and (error := error_of(look.failed)):
                    display.say(one_line(error, 400))
                return look.code
        except Error as problem:
            drop_connection()
            if not is_out:
                display.say(f"The database does not answer: {one_line(str(problem))} Trying again.")
            is_out = True
        pause = pace.end(has_news)
        if until is not None:
            pause = min(pause, until - time.monotonic())
        if pause <= 0:
            return WatchCode.TIMEOUT
        clock.wait(pause)

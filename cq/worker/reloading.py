"""
Draining the embedded worker before Django's reloader ends the process.

Under `runserver` the reloader has the main thread: it ends the process from there, by a
change of code or by a signal, while the server's loop still turns in another thread. Here
the worker on that loop is stopped first, so that what it runs is handed back uncharged.
"""

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from django.utils.autoreload import autoreload_started, file_changed

_is_ending = False


def watch() -> None:
    """Listen to the reloader; costs nothing where there is none, or no embedded worker."""
    autoreload_started.connect(_go_before_its_signals, dispatch_uid="cq")
    file_changed.connect(_before_reload, dispatch_uid="cq")


def _before_reload(sender: Any, file_path: Path, **_: Any) -> None:
    # Of the others (templates, translations) Django mostly takes note without a reload.
    if file_path.suffix == ".py":
        _stop_worker(at_once=False)


def _go_before_its_signals(sender: Any, **_: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, partial(_stop_and_go_on, before))


def _stop_and_go_on(
    go_on: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
) -> None:
    global _is_ending
    if not _is_ending:
        _is_ending = True
        # The parent kills this process a quarter of a second after a Ctrl-C.
        _stop_worker(at_once=True)
    go_on(number, frame)


def _stop_worker(*, at_once: bool) -> None:
    # Not imported here: most processes of manage.py host no worker, and pay nothing for one.
    embedded = sys.modules.get("cq.worker.embedded")
    if embedded is not None:
        embedded.embedded_worker.stop_from_thread(at_once=at_once)

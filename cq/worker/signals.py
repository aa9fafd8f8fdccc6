"""
What each signal asks of a worker process.

SIGTERM and SIGINT ask it to drain, a second one to hand back at once; SIGQUIT does so
right away; SIGUSR1 logs every stack, SIGUSR2 asks it to claim nothing more; SIGHUP, which
a closed terminal sends, drains as well.

Under a supervisor one wish may arrive twice, from the supervisor and from whoever signals
all processes at once: a terminal, systemd's control group, honcho. There a repeated
SIGTERM means nothing new, force comes as SIGQUIT alone, and SIGHUP is the supervisor's.
"""

import asyncio
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from cq.worker.child import is_child

MAX_FRAMES = 20

logger = logging.getLogger("cq.worker")


@contextmanager
def signals_to(
    loop: asyncio.AbstractEventLoop,
    *,
    drain: Callable[[], object],
    force: Callable[[], object],
    quiet: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """
    Call these on the loop when signals ask for it, while the block runs; main thread only.

    `drain` is called once, `force` at most once and possibly without `drain` before it.
    """
    wishes = Wishes(drain=drain, force=force, quiet=quiet, is_child=is_child())
    with handled(Wishes.NAMES, lambda name: loop.call_soon_threadsafe(wishes.hear, name)):
        yield


@contextmanager
def handled(names: Iterable[str], act: Callable[[str], object]) -> Iterator[None]:
    """
    Call `act` with the name of each signal that comes, while the block runs.

    It runs between two steps of the main thread: it may only hand the name on. Names that
    the system does not know are left out; the handlers before are put back.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        act(signal.Signals(number).name)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Wishes:
    """Turns the names of signals, in the order they come, into what the worker shall do."""

    NAMES = ("SIGTERM", "SIGINT", "SIGBREAK", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

    def __init__(
        self,
        *,
        drain: Callable[[], object],
        force: Callable[[], object],
        quiet: Callable[[], object],
        is_child: bool,
    ) -> None:
        self._drain = drain
        self._force = force
        self._quiet = quiet
        self._is_child = is_child
        self._draining = False
        self._forced = False

    def hear(self, name: str) -> None:
        """Answer one signal."""
        if name == "SIGUSR1":
            logger.warning("Stacks, as asked by SIGUSR1:\n%s", describe_stacks())
        elif name == "SIGUSR2":
            self._quiet()
        elif name == "SIGHUP" and self._is_child:
            pass
        elif name == "SIGQUIT" or (self._draining and not self._is_child):
            self._force_once()
        elif not self._draining:
            self._draining = True
            self._drain()

    def _force_once(self) -> None:
        if not self._forced:
            self._forced = self._draining = True
            self._force()


def describe_stacks() -> str:
    """Spell the stack of every thread, and of every asyncio task of the calling loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame)[-MAX_FRAMES:])
        parts.append(f"Thread {names.get(ident, ident)}:\n{stack}")
    for task in asyncio.all_tasks():
        frames = [traceback.format_stack(frame, 1)[0] for frame in task.get_stack(limit=MAX_FRAMES)]
        parts.append(f"Task {task.get_name()}:\n{''.join(frames)}")
    return "\n".join(parts)

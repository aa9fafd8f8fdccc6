"""
The supervisor of `cq_runworker -p N`: N processes kept running, and ended in order.

Deaths and signals enter as events, one at a time; each is answered by starting, signalling
or ending children. A process that dies is started again, later each time; when none of
them stays up, or one says that starting again cannot help, all are ended and the reason
becomes the exit code.
"""

import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from cq.worker.child import signal_child, start_child
from cq.worker.exit_codes import ExitCode
from cq.worker.signals import handled

# A worker may take its grace and five seconds to end; after a second signal, one to hand back.
END_MARGIN = 7.0
FORCED_MARGIN = 3.0
HEALTHY_AFTER = 10.0
SETTLED_AFTER = 2.0
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
MAX_RAPID_DEATHS = 5
# Signal handlers only run between two waits of the main thread on systems where a wait
# cannot be interrupted.
LONGEST_SLEEP = 1.0

_DRAIN = ("SIGTERM", "SIGINT", "SIGBREAK")
_FORWARD = ("SIGUSR1", "SIGUSR2")
_SIGNALS = (*_DRAIN, *_FORWARD, "SIGQUIT", "SIGHUP")
_HOPELESS = (ExitCode.USAGE, ExitCode.MIGRATIONS)
_KILLED = -9
# SIGTERM and SIGQUIT kill a child whose handlers are not there yet: it has claimed nothing.
_ENDED_AT_START = (-15, -3)

logger = logging.getLogger("cq.worker")


class Process(Protocol):
    """What the supervisor needs of a child."""

    pid: int

    def signal(self, name: str) -> None:
        """Pass a signal on."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(slots=True)
class Slot:
    """The place of one child, kept while processes come and go."""

    number: int
    process: Process | None = None
    started: float = 0.0
    rapid_deaths: int = 0
    start_at: float | None = None
    kill_at: float | None = None
    done: bool = False


@dataclass(slots=True)
class Rollout:
    """A rolling restart: who is still to be replaced, who is being replaced."""

    waiting: deque[Slot] = field(default_factory=deque)
    current: Slot | None = None
    settled_at: float | None = None


class Supervisor:
    """Decides; it is told of time and events, and touches children through `start` alone."""

    def __init__(
        self,
        processes: int,
        grace: float,
        *,
        start: Callable[[int], Process],
        clock: Callable[[], float] = time.monotonic,
        burst: bool = False,
    ) -> None:
        self._slots = [Slot(number, start_at=clock()) for number in range(processes)]
        self._grace = grace
        self._start = start
        self._clock = clock
        self._burst = burst
        self._draining = False
        self._rollout = Rollout()
        self.code = ExitCode.CLEAN

    # --- what the loop asks -------------------------------------------------------------------

    def is_over(self) -> bool:
        """Whether no child runs and none will."""
        return all(slot.process is None and (slot.done or self._draining) for slot in self._slots)

    def next_deadline(self) -> float | None:
        """When `on_time` has something to do."""
        times = [slot.start_at for slot in self._slots] + [slot.kill_at for slot in self._slots]
        times.append(self._rollout.settled_at)
        return min((moment for moment in times if moment is not None), default=None)

    # --- events -------------------------------------------------------------------------------

    def on_time(self) -> None:
        """Do what has become due: starts, kills, the next step of a rolling restart."""
        now = self._clock()
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now:
                self._start_slot(slot)
            if slot.kill_at is not None and slot.kill_at <= now:
                self._kill(slot)
        settled_at = self._rollout.settled_at
        if settled_at is not None and settled_at <= now:
            self._rollout.current = self._rollout.settled_at = None
            self._roll_on()

    def on_signal(self, name: str) -> None:
        """Answer a signal to the supervisor."""
        if name in _FORWARD:
            self._signal_all(name)
        elif name == "SIGHUP":
            self._roll()
        elif self._draining:
            self._force()
        else:
            self._drain("SIGQUIT" if name == "SIGQUIT" else "SIGTERM")

    def on_exit(self, number: int, code: int) -> None:
        """Answer the end of a child; a negative code is the signal that killed it."""
        slot = self._slots[number]
        lived = self._clock() - slot.started
        slot.process, slot.kill_at = None, None
        if self._draining:
            self._note(code)
        elif self._rollout.current is slot and self._rollout.settled_at is None:
            slot.start_at = self._clock()
        elif self._burst and code == ExitCode.CLEAN:
            slot.done = True
        elif code in _HOPELESS:
            self._give_up(ExitCode(code), f"process {number} exited with {code}")
        elif code == ExitCode.UNREACHABLE and not self._any_running():
            self._give_up(ExitCode.UNREACHABLE, "the database or the layer is out of reach")
        else:
            self._restart(slot, code, lived)

    # --- answers ------------------------------------------------------------------------------

    def _start_slot(self, slot: Slot) -> None:
        slot.start_at, slot.started = None, self._clock()
        try:
            slot.process = self._start(slot.number)
        except OSError as error:
            logger.error("Process %d cannot be started: %s.", slot.number, error)
            self.on_exit(slot.number, ExitCode.CRASH)
            return
        logger.info("Process %d runs with pid %d.", slot.number, slot.process.pid)
        if self._rollout.current is slot:
            self._rollout.settled_at = slot.started + SETTLED_AFTER

    def _restart(self, slot: Slot, code: int, lived: float) -> None:
        self._stop_rollout_at(slot, code)
        now = self._clock()
        if code == ExitCode.CLEAN and lived >= FIRST_WAIT:
            # It has asked for its own replacement: --max-tasks, --max-memory, leaked threads.
            slot.rapid_deaths, slot.start_at = 0, now
            return
        slot.rapid_deaths = 1 if lived >= HEALTHY_AFTER else slot.rapid_deaths + 1
        if all(other.done or other.rapid_deaths >= MAX_RAPID_DEATHS for other in self._slots):
            self._give_up(ExitCode.CRASH_LOOP, "no process stays up")
            return
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(slot.rapid_deaths - 1, 10))
        slot.start_at = now + wait
        logger.error(
            "Process %d ended with %s after %.1f s; it starts again in %.1f s.",
            slot.number,
            describe_exit(code),
            lived,
            wait,
        )

    def _give_up(self, code: ExitCode, reason: str) -> None:
        logger.error("The supervisor ends with %d: %s.", code, reason)
        self.code = code
        self._drain("SIGTERM")

    def _drain(self, name: str) -> None:
        self._draining = True
        self._rollout = Rollout()
        for slot in self._slots:
            slot.start_at = None
            self._end(slot, name, self._grace + END_MARGIN)

    def _force(self) -> None:
        for slot in self._slots:
            # A repeated SIGTERM says nothing new to a child (signals.py).
            self._end(slot, "SIGQUIT", FORCED_MARGIN)

    def _end(self, slot: Slot, name: str, within: float) -> None:
        if slot.process is not None:
            slot.process.signal(name)
            slot.kill_at = self._clock() + within

    def _kill(self, slot: Slot) -> None:
        slot.kill_at = None
        if slot.process is not None:
            logger.error("Process %d does not end; it is killed.", slot.number)
            slot.process.kill()

    def _note(self, code: int) -> None:
        """Let the end of a child count, unless there is a reason already."""
        if self.code != ExitCode.CLEAN or code == ExitCode.CLEAN:
            return
        if code in _ENDED_AT_START:
            return
        self.code = ExitCode.FORCED if code in (ExitCode.FORCED, _KILLED) else ExitCode.CRASH

    def _signal_all(self, name: str) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.signal(name)

    def _any_running(self) -> bool:
        return any(slot.process is not None for slot in self._slots)

    # --- the rolling restart ------------------------------------------------------------------

    def _roll(self) -> None:
        if not self._draining:
            logger.info("A rolling restart begins.")
            self._rollout.waiting = deque(slot for slot in self._slots if not slot.done)
            self._roll_on()

    def _roll_on(self) -> None:
        rollout = self._rollout
        while rollout.current is None and rollout.waiting:
            slot = rollout.waiting.popleft()
            if slot.process is not None:
                rollout.current = slot
                self._end(slot, "SIGTERM", self._grace + END_MARGIN)

    def _stop_rollout_at(self, slot: Slot, code: int) -> None:
        if self._rollout.current is slot:
            logger.error(
                "The rolling restart stops: the new process %d ended with %s. "
                "%d others were not replaced.",
                slot.number,
                describe_exit(code),
                len(self._rollout.waiting),
            )
            self._rollout = Rollout()


def describe_exit(code: int) -> str:
    """Say how a process ended, in words."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


# --- real processes and signals -----------------------------------------------------------------


class _Child:
    """A child process whose end is reported by a thread that waits for it."""

    def __init__(self, process: subprocess.Popen[bytes], on_exit: Callable[[int], object]) -> None:
        self.pid = process.pid
        self._process = process
        self._on_exit = on_exit
        threading.Thread(target=self._wait, name=f"cq-child-{self.pid}", daemon=True).start()

    def signal(self, name: str) -> None:
        """Pass a signal on; one to a process that has just ended goes nowhere."""
        signal_child(self._process, name)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _wait(self) -> None:
        code = self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._on_exit(code)


def run_supervised(
    argv: Sequence[str], processes: int, grace: float, *, burst: bool = False
) -> int:
    """
    Keep `processes` runs of a command going until a signal ends them; return the exit code.

    Called on the main thread, before any database connection is open. A run that exits
    with 0 is started again, because it asked for its replacement; with `burst` it is done.
    """
    events: queue.SimpleQueue[Callable[[Supervisor], None]] = queue.SimpleQueue()

    def start(number: int) -> Process:
        def report(code: int) -> None:
            events.put(lambda supervisor: supervisor.on_exit(number, code))

        return _Child(start_child(argv, number), report)

    supervisor = Supervisor(processes, grace, start=start, burst=burst)
    with _signals_to(events):
        while not supervisor.is_over():
            supervisor.on_time()
            deadline = supervisor.next_deadline()
            left = LONGEST_SLEEP if deadline is None else deadline - time.monotonic()
            try:
                event = events.get(timeout=min(max(left, 0.0), LONGEST_SLEEP))
            except queue.Empty:
                continue
            event(supervisor)
    return int(supervisor.code)


@contextmanager
def _signals_to(events: queue.SimpleQueue[Callable[[Supervisor], None]]) -> Iterator[None]:
    """Turn signals into events; putting into a SimpleQueue is safe inside a handler."""
    had_terminal = _has_terminal()

    def act(name: str) -> None:
        if name == "SIGHUP" and had_terminal and not _has_terminal():
            name = "SIGTERM"  # its terminal was closed: nobody asked for a restart
        events.put(lambda supervisor: supervisor.on_signal(name))

    with handled(_SIGNALS, act):
        yield


def _has_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()

"""`-p N` with real processes and real signals; the children are small programs, not workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WaitUntil = Callable[..., Any]

CHILD = """
import os, signal, sys
from pathlib import Path
from cq.worker.child import child_number, watch_supervisor

diary = Path(sys.argv[1])

def write(word):
    with diary.open("a") as file:
        file.write(f"{child_number()} {os.getpid()} {word}\\n")

def on_term(number, frame):
    write("term")
    if sys.argv[2] != "stubborn":
        os._exit(0)

signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, lambda number, frame: os._exit(6))
signal.signal(signal.SIGUSR1, lambda number, frame: write("usr1"))
watch_supervisor(lambda: (write("orphan"), os._exit(0)))
write("start")
if sys.argv[2].isdigit():
    sys.exit(int(sys.argv[2]))
while True:
    signal.pause()
"""

SUPERVISOR = """
import logging, sys
from cq.worker.supervisor import run_supervised
logging.basicConfig(level=logging.INFO)
child, diary, behaviour, processes = sys.argv[1:5]
sys.exit(run_supervised(
    [sys.executable, child, diary, behaviour], int(processes), 20.0, burst="burst" in sys.argv
))
"""


class Family:
    """A supervisor, and what its children wrote into their diary."""

    def __init__(
        self, directory: Path, behaviour: str, processes: int, *more: str, stdin: int | None = None
    ) -> None:
        self.diary = directory / "diary"
        self.diary.touch()
        script = directory / "child.py"
        script.write_text(CHILD)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", SUPERVISOR, str(script), str(self.diary)),
                *(behaviour, str(processes), *more),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=stdin,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def entries(self, word: str) -> list[tuple[int, int]]:
        """Slot and pid of the children that wrote the word."""
        lines = [line.split() for line in self.diary.read_text().splitlines()]
        return [(int(number), int(pid)) for number, pid, said in lines if said == word]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    families = []

    def start(
        behaviour: str = "polite", processes: int = 2, *more: str, stdin: int | None = None
    ) -> Family:
        families.append(Family(tmp_path, behaviour, processes, *more, stdin=stdin))
        return families[-1]

    yield start
    for family in families:
        family.end()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def started(family: Family, wait_until: WaitUntil, count: int = 2) -> list[tuple[int, int]]:
    wait_until(lambda: len(family.entries("start")) >= count)
    return family.entries("start")


def test_sigterm_reaches_every_child_and_the_exit_is_clean(
    start: Callable[..., Family], wait_until: WaitUntil
) -> None:
    family = start(processes=3)
    children = started(family, wait_until, 3)
    assert sorted(number for number, _ in children) == [0, 1, 2]
    family.process.terminate()
    assert family.process.wait(10) == 0
    assert sorted(family.entries("term")) == sorted(children)


def test_a_second_signal_forces_and_exits_6(
    start: Callable[..., Family], wait_until: WaitUntil
) -> None:
    family = start("stubborn")
    started(family, wait_until)
    family.process.terminate()
    wait_until(lambda: len(family.entries("term")) == 2)
    family.process.terminate()
    assert family.process.wait(10) == 6


def test_a_killed_child_is_replaced(start: Callable[..., Family], wait_until: WaitUntil) -> None:
    family = start()
    number, pid = started(family, wait_until)[0]
    os.kill(pid, signal.SIGKILL)
    again = started(family, wait_until, 3)[2]
    assert again[0] == number
    assert again[1] != pid


def test_children_drain_when_the_supervisor_is_killed(
    start: Callable[..., Family], wait_until: WaitUntil
) -> None:
    family = start()
    children = started(family, wait_until)
    family.process.kill()
    wait_until(lambda: sorted(family.entries("orphan")) == sorted(children))
    wait_until(lambda: not any(is_running(pid) for _, pid in children))


def test_hup_replaces_every_child(start: Callable[..., Family], wait_until: WaitUntil) -> None:
    family = start()
    before = started(family, wait_until)
    family.process.send_signal(signal.SIGHUP)
    after = started(family, wait_until, 4)[2:]
    assert sorted(number for number, _ in after) == [0, 1]
    assert family.entries("term") == sorted(before)
    assert family.process.poll() is None


def test_other_signals_are_passed_on(start: Callable[..., Family], wait_until: WaitUntil) -> None:
    family = start()
    children = started(family, wait_until)
    family.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: sorted(family.entries("usr1")) == sorted(children))


@pytest.mark.parametrize("code", [2, 4])
def test_a_reason_no_restart_can_mend_is_the_exit_code(
    start: Callable[..., Family], code: int
) -> None:
    assert start(str(code)).process.wait(10) == code


def test_a_burst_ends_with_its_children(start: Callable[..., Family]) -> None:
    family = start("0", 2, "burst")
    assert family.process.wait(10) == 0
    assert sorted(number for number, _ in family.entries("start")) == [0, 1]


def test_a_crash_loop_is_5(start: Callable[..., Family]) -> None:
    family = start("1", 1)
    assert family.process.wait(25) == 5
    assert len(family.entries("start")) == 5


def test_a_closed_terminal_drains(start: Callable[..., Family], wait_until: WaitUntil) -> None:
    """The system says SIGHUP then, which otherwise asks for a rolling restart."""
    master, slave = os.openpty()
    family = start(stdin=slave)
    os.close(slave)
    children = started(family, wait_until)
    os.close(master)
    family.process.send_signal(signal.SIGHUP)
    assert family.process.wait(10) == 0
    assert sorted(family.entries("term")) == sorted(children)

"""The supervisor's decisions, with children and a clock that obey the test."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count

import pytest

from cq.errors import InvalidOption
from cq.worker import child
from cq.worker.exit_codes import ExitCode
from cq.worker.supervisor import (
    END_MARGIN,
    FORCED_MARGIN,
    HEALTHY_AFTER,
    MAX_RAPID_DEATHS,
    SETTLED_AFTER,
    Supervisor,
    describe_exit,
)

GRACE = 30.0


class Child:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.signals: list[str] = []

    def signal(self, name: str) -> None:
        self.signals.append(name)

    def kill(self) -> None:
        self.signals.append("SIGKILL")


class World:
    """A supervisor, its children by slot, and a clock."""

    def __init__(self, processes: int, *, burst: bool = False) -> None:
        self.now = 0.0
        self.children: dict[int, list[Child]] = {number: [] for number in range(processes)}
        self.pids = count(100)
        self.start_error: OSError | None = None
        self.supervisor = Supervisor(
            processes, GRACE, start=self.start, clock=lambda: self.now, burst=burst
        )
        self.supervisor.on_time()

    def start(self, number: int) -> Child:
        if self.start_error is not None:
            raise self.start_error
        child = Child(next(self.pids))
        self.children[number].append(child)
        return child

    def after(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline as the loop does."""
        end = self.now + seconds
        while (deadline := self.supervisor.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.supervisor.on_time()
        self.now = end

    def exit(self, number: int, code: int, *, after: float = 0.0) -> None:
        self.after(after)
        self.supervisor.on_exit(number, code)
        self.supervisor.on_time()

    def signal(self, name: str) -> None:
        self.supervisor.on_signal(name)
        self.supervisor.on_time()

    def starts(self, number: int = 0) -> int:
        return len(self.children[number])

    def last(self, number: int = 0) -> Child:
        return self.children[number][-1]


@pytest.fixture
def world() -> Callable[..., World]:
    return World


def test_all_children_start_at_once(world: Callable[..., World]) -> None:
    w = world(3)
    assert [w.starts(number) for number in range(3)] == [1, 1, 1]
    assert not w.supervisor.is_over()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_drains_and_the_code_is_clean(
    world: Callable[..., World], name: str
) -> None:
    w = world(2)
    w.signal(name)
    assert w.last(0).signals == w.last(1).signals == ["SIGTERM"]
    w.exit(0, 0, after=GRACE)
    assert not w.supervisor.is_over()
    w.exit(1, 0)
    assert w.supervisor.is_over()
    assert w.supervisor.code == ExitCode.CLEAN
    assert w.starts(0) == w.starts(1) == 1


def test_a_child_that_outstays_its_grace_is_killed(world: Callable[..., World]) -> None:
    w = world(2)
    w.signal("SIGTERM")
    w.exit(0, 0, after=1)
    w.after(GRACE + END_MARGIN)
    assert w.last(1).signals == ["SIGTERM", "SIGKILL"]
    w.exit(1, -9)
    assert w.supervisor.is_over()
    assert w.supervisor.code == ExitCode.FORCED


def test_the_second_signal_forces(world: Callable[..., World]) -> None:
    w = world(2)
    w.signal("SIGTERM")
    w.signal("SIGTERM")
    assert w.last(0).signals == ["SIGTERM", "SIGQUIT"]
    w.exit(0, ExitCode.FORCED, after=1)
    w.after(FORCED_MARGIN)
    assert w.last(1).signals[-1] == "SIGKILL"
    w.exit(1, -9)
    assert w.supervisor.code == ExitCode.FORCED


def test_quit_is_passed_on_and_ends(world: Callable[..., World]) -> None:
    w = world(1)
    w.signal("SIGQUIT")
    assert w.last().signals == ["SIGQUIT"]
    w.exit(0, 0)
    assert w.supervisor.is_over()


@pytest.mark.parametrize("code", [-15, -3, 0])
def test_a_child_ended_while_it_started_is_a_clean_end(
    world: Callable[..., World], code: int
) -> None:
    w = world(1)
    w.signal("SIGTERM")
    w.exit(0, code)
    assert w.supervisor.code == ExitCode.CLEAN


def test_a_crash_during_the_drain_is_told(world: Callable[..., World]) -> None:
    w = world(2)
    w.signal("SIGTERM")
    w.exit(0, -11)
    w.exit(1, 0)
    assert w.supervisor.code == ExitCode.CRASH


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_other_signals_are_passed_on(world: Callable[..., World], name: str) -> None:
    w = world(2)
    w.signal(name)
    assert w.last(0).signals == w.last(1).signals == [name]
    assert not w.supervisor.is_over()


def test_a_dead_child_is_started_again_while_the_others_run_on(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    w = world(2)
    w.exit(0, -9, after=HEALTHY_AFTER)
    assert w.starts(0) == 1
    w.after(0.5)
    assert w.starts(0) == 2
    assert w.starts(1) == 1
    assert "Process 0 ended with SIGKILL after 10.0 s" in caplog.text


def test_deaths_in_a_row_wait_longer_and_health_forgives_them(world: Callable[..., World]) -> None:
    w = world(2)
    waits = []
    for _ in range(8):
        w.exit(0, 1, after=1)
        deadline = w.supervisor.next_deadline()
        assert deadline is not None
        waits.append(deadline - w.now)
        w.after(deadline - w.now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    w.exit(0, 1, after=HEALTHY_AFTER)
    assert w.supervisor.next_deadline() == w.now + 0.5
    assert not w.supervisor.is_over(), "the other one is healthy all the time"


def test_when_no_child_stays_up_it_ends_with_5(world: Callable[..., World]) -> None:
    w = world(2)
    for _ in range(MAX_RAPID_DEATHS):
        assert w.supervisor.code == ExitCode.CLEAN
        w.after(60)  # until both run again
        w.supervisor._slots[0].started = w.supervisor._slots[1].started = w.now
        w.exit(0, 1)
        w.exit(1, 1)
    assert w.supervisor.is_over()
    assert w.supervisor.code == ExitCode.CRASH_LOOP


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.MIGRATIONS])
def test_what_no_restart_can_mend_ends_all(world: Callable[..., World], code: ExitCode) -> None:
    w = world(2)
    w.exit(0, code)
    assert w.last(1).signals == ["SIGTERM"]
    w.exit(1, 0, after=5)
    assert w.supervisor.is_over()
    assert w.supervisor.code == code


def test_a_database_out_of_reach_for_all_is_3(world: Callable[..., World]) -> None:
    w = world(2)
    w.exit(0, ExitCode.UNREACHABLE, after=60)
    assert w.starts(0) == 1
    assert not w.supervisor.is_over()
    w.exit(1, ExitCode.UNREACHABLE)
    assert w.supervisor.is_over()
    assert w.supervisor.code == ExitCode.UNREACHABLE


def test_out_of_reach_for_one_is_tried_again(world: Callable[..., World]) -> None:
    w = world(2)
    w.exit(0, ExitCode.UNREACHABLE, after=60)
    w.after(0.5)
    assert w.starts(0) == 2


def test_a_child_that_asks_for_its_replacement_gets_it_at_once(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    w = world(1)
    for _ in range(20):
        w.exit(0, 0, after=3)
    assert w.starts() == 21
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_children_that_end_at_once_are_no_replacement(world: Callable[..., World]) -> None:
    w = world(1)
    for _ in range(MAX_RAPID_DEATHS):
        w.exit(0, 0)
        w.after(31)
        w.supervisor._slots[0].started = w.now
    assert w.supervisor.code == ExitCode.CRASH_LOOP


def test_a_burst_is_over_when_every_child_is_done(world: Callable[..., World]) -> None:
    w = world(2, burst=True)
    w.exit(0, 0, after=5)
    assert not w.supervisor.is_over()
    w.exit(1, 1, after=5)
    w.after(1)
    assert (w.starts(0), w.starts(1)) == (1, 2)
    w.exit(1, 0, after=5)
    assert w.supervisor.is_over()
    assert w.supervisor.code == ExitCode.CLEAN


def test_a_system_without_processes_left_is_tried_again(world: Callable[..., World]) -> None:
    w = world(2)
    w.start_error = BlockingIOError("Resource temporarily unavailable")
    w.exit(0, 1, after=20)
    w.after(0.6)
    w.start_error = None
    w.after(2)
    assert w.starts(0) == 2


def test_a_rolling_restart_replaces_one_after_the_other(world: Callable[..., World]) -> None:
    w = world(2)
    w.after(60)
    w.signal("SIGHUP")
    assert (w.last(0).signals, w.last(1).signals) == (["SIGTERM"], [])
    w.exit(0, 0, after=10)
    assert w.starts(0) == 2
    assert w.last(1).signals == [], "not before the new one has settled"
    w.after(SETTLED_AFTER)
    assert w.last(1).signals == ["SIGTERM"]
    w.exit(1, 0, after=10)
    w.after(SETTLED_AFTER)
    assert (w.starts(0), w.starts(1)) == (2, 2)
    assert w.last(0).signals == w.last(1).signals == []
    assert w.supervisor.next_deadline() is None


def test_a_rolling_restart_kills_who_does_not_end(world: Callable[..., World]) -> None:
    w = world(1)
    w.after(60)
    w.signal("SIGHUP")
    w.after(GRACE + END_MARGIN)
    assert w.last().signals == ["SIGTERM", "SIGKILL"]
    w.exit(0, -9)
    assert w.starts() == 2


def test_a_broken_release_stops_the_rolling_restart(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    w = world(3)
    w.after(60)
    w.signal("SIGHUP")
    w.exit(0, 0, after=1)
    w.exit(0, 1, after=SETTLED_AFTER / 2)
    assert "The rolling restart stops" in caplog.text
    w.after(60)
    assert w.last(1).signals == w.last(2).signals == []
    assert w.starts(1) == w.starts(2) == 1


def test_a_drain_ends_a_rolling_restart(world: Callable[..., World]) -> None:
    w = world(2)
    w.after(60)
    w.signal("SIGHUP")
    w.signal("SIGTERM")
    w.exit(0, 0)
    w.exit(1, 0)
    assert w.supervisor.is_over()
    assert w.starts(0) == w.starts(1) == 1
    w.signal("SIGHUP")
    assert w.supervisor.is_over()


def test_exits_are_described() -> None:
    assert describe_exit(-9) == "SIGKILL"
    assert describe_exit(-200) == "signal 200"
    assert describe_exit(1) == "exit code 1"


def test_the_own_command_line_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["python", "-X", "dev", "manage.py", "cq_runworker", "-p", "4"]
    monkeypatch.setattr(child.sys, "orig_argv", line)
    assert child.own_command() == [child.sys.executable, *line[1:]]


def test_a_command_called_by_another_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.sys, "orig_argv", ["python", "-m", "pytest"])
    with pytest.raises(InvalidOption, match="leave out -p"):
        child.own_command()


def test_children_know_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not child.is_child()
    assert child.child_number() == 0
    monkeypatch.setenv(child.NUMBER, "3")
    assert child.is_child()
    assert child.child_number() == 3

"""Who a process is, and whether another one is certainly gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cq.worker import process_identity
from cq.worker.process_identity import ProcessIdentity, is_gone, this_process

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input closes."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    assert process.stdin
    process.stdin.close()
    process.wait()


def identity_of(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    started = process_identity._started(process.pid)
    return replace(this_process(), pid=process.pid, pid_started=started)


def test_this_process_is_alive_and_known_by_all_its_marks() -> None:
    here = this_process()
    assert is_gone(here) is False
    assert here.pid == os.getpid()
    assert all([here.hostname, here.host_id, here.pid_started])
    assert all(len(mark) <= 200 for mark in (*here.place, here.pid_started))
    assert this_process() is here


def test_a_forked_child_has_an_identity_of_its_own() -> None:
    # In a process without threads: elsewhere Python warns of a fork.
    script = """
import os
from cq.worker.process_identity import is_gone, this_process
parent = this_process()
pid = os.fork()
if pid == 0:
    child = this_process()
    assert child.pid == os.getpid() != parent.pid
    assert child.place == parent.place
    assert is_gone(parent) is False
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_living_process_is_not_gone(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_gone(identity_of(sleeper)) is False


def test_a_killed_process_is_gone_even_before_its_parent_knows(
    sleeper: subprocess.Popen[bytes], wait_until: Callable[..., Any]
) -> None:
    identity = identity_of(sleeper)
    sleeper.kill()
    wait_until(lambda: is_gone(identity))  # a zombie: nobody has waited for it yet
    assert os.kill(sleeper.pid, 0) is None
    sleeper.wait()
    assert is_gone(identity) is True


def test_a_reused_pid_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    before = replace(identity_of(sleeper), pid_started="1")
    assert is_gone(before) is True


def test_an_unknown_start_proves_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_gone(replace(identity_of(sleeper), pid_started="")) is False


@pytest.mark.parametrize("mark", ["hostname", "host_id", "boot_id", "pid_namespace"])
def test_from_another_place_it_cannot_be_told(mark: str) -> None:
    elsewhere = replace(this_process(), pid=2**22 + 1, **{mark: "elsewhere"})
    assert is_gone(elsewhere) is None


@pytest.mark.parametrize("pid", [0, -1])
def test_no_pid_is_no_process_and_above_all_not_a_group(pid: int) -> None:
    assert is_gone(replace(this_process(), pid=pid)) is None


def test_a_pid_nobody_has_is_gone() -> None:
    assert is_gone(replace(this_process(), pid=2**22 + 1)) is True


def test_a_process_of_somebody_else_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    here = this_process()
    assert is_gone(here) is False
    assert is_gone(replace(here, pid_started="1")) is True


def test_a_system_without_proc_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_identity, "_read", lambda path: "")
    monkeypatch.setattr(process_identity, "_pid_namespace", lambda: "")
    monkeypatch.setattr(sys, "platform", "linux")
    process_identity._identify.cache_clear()
    try:
        assert is_gone(this_process()) is None
    finally:
        process_identity._identify.cache_clear()


def test_a_system_that_shows_no_process_leaves_its_start_unknown() -> None:
    assert process_identity._started_by_ps(2**22 + 1) == ""


def test_a_name_with_spaces_and_brackets_does_not_confuse_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stat = "7 (a) b) (c) S " + " ".join(str(number) for number in range(4, 60))
    monkeypatch.setattr(process_identity, "_read", lambda path: stat)
    assert process_identity._started(7) == "22"
    assert not process_identity._is_zombie(7)

"""What signals ask of a worker, alone and under a supervisor."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from cq.worker.signals import Wishes, signals_to


class Recorder:
    def __init__(self, *, is_child: bool = False) -> None:
        self.done: list[str] = []
        self.wishes = Wishes(
            drain=lambda: self.done.append("drain"),
            force=lambda: self.done.append("force"),
            quiet=lambda: self.done.append("quiet"),
            is_child=is_child,
        )

    def hear(self, *names: str) -> list[str]:
        for name in names:
            self.wishes.hear(name)
        return self.done


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_the_first_drains_the_second_forces_the_third_is_nothing(name: str) -> None:
    assert Recorder().hear(name) == ["drain"]
    assert Recorder().hear(name, "SIGINT", "SIGTERM") == ["drain", "force"]


def test_quit_forces_at_once() -> None:
    assert Recorder().hear("SIGQUIT", "SIGTERM", "SIGQUIT") == ["force"]
    assert Recorder(is_child=True).hear("SIGTERM", "SIGQUIT") == ["drain", "force"]


def test_under_a_supervisor_one_wish_may_come_twice() -> None:
    """systemd signals the supervisor and its children, and the supervisor passes it on."""
    child = Recorder(is_child=True)
    assert child.hear("SIGTERM", "SIGINT", "SIGTERM", "SIGHUP") == ["drain"]
    assert Recorder(is_child=True).hear("SIGHUP") == []


def test_quiet_can_be_asked_any_time() -> None:
    assert Recorder().hear("SIGUSR2", "SIGTERM") == ["quiet", "drain"]


def test_stacks_are_logged_on_demand(caplog: pytest.LogCaptureFixture) -> None:
    async def a_recognisable_task() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(a_recognisable_task(), name="task-7")
            await asyncio.sleep(0)
            Recorder().hear("SIGUSR1")
            task.cancel()

    asyncio.run(main())
    assert "a_recognisable_task" in caplog.text
    assert "Task task-7:" in caplog.text
    assert "Thread MainThread:" in caplog.text


def test_real_signals_arrive_on_the_loop_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR2)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        with signals_to(loop, drain=lambda: None, force=lambda: None, quiet=heard.set):
            os.kill(os.getpid(), signal.SIGUSR2)
            async with asyncio.timeout(5):
                await heard.wait()

    asyncio.run(main())
    assert signal.getsignal(signal.SIGUSR2) is before

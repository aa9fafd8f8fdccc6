"""The doors of a task row on an event loop: each refuses to block it and names its twin."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from cq.errors import RunningLoop
from cq.models import Task
from cq.models.verbs import AsyncVerbs, TaskVerbs

VERBS = ("submit", "retry", "revoke", "subtask", "chain", "errorback", "format_logs")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_names_its_twin(verb: str) -> None:
    with pytest.raises(RunningLoop, match=rf"await task\.a{verb}\("):
        getattr(Task(), verb)()


async def test_the_log_names_its_twin() -> None:
    with pytest.raises(RunningLoop, match=r"await task\.alogs\(\)"):
        _ = Task().logs


async def test_wait_names_await() -> None:
    with pytest.raises(RunningLoop, match="await task"):
        Task().wait()


def test_each_verb_has_a_twin_with_the_same_parameters() -> None:
    twins = {name for name, _ in inspect.getmembers(AsyncVerbs, inspect.iscoroutinefunction)}
    assert twins == {f"a{verb}" for verb in VERBS} | {"alogs"}
    for verb in VERBS:
        sync: Any = getattr(TaskVerbs, verb)
        twin: Any = getattr(AsyncVerbs, f"a{verb}")
        assert list(inspect.signature(sync).parameters) == list(inspect.signature(twin).parameters)


def test_a_row_is_not_saved_by_hand() -> None:
    task = Task(func_name="x")
    task._state.adding = False
    with pytest.raises(TypeError, match="use its verbs"):
        task.save()

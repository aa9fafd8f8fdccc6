"""The public names: what `cq` offers, and that each one is really there."""

from __future__ import annotations

import pytest

import cq

PUBLIC = {
    "CQError",
    "Context",
    "RepeatingTask",
    "Signature",
    "Status",
    "Task",
    "TaskFunction",
    "__version__",
    "chain",
    "delay",
    "errorback",
    "retry",
    "revoke",
    "schedule_task",
    "submit",
    "subtask",
    "task",
    "wait",
    "wait_async",
    "watch_token",
}


def test_the_public_names_are_these():
    assert set(cq.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_can_be_had(name: str):
    assert getattr(cq, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tusk'"):
        cq.tusk  # noqa: B018


def test_the_historic_paths_keep_working():
    from cq.decorators import task
    from cq.models import RepeatingTask, Task, delay, schedule_task

    assert task is cq.task
    assert (Task, RepeatingTask) == (cq.Task, cq.RepeatingTask)
    assert callable(delay)
    assert callable(schedule_task)


def test_the_version_is_that_of_the_distribution():
    import tomllib

    from tests.architecture.source import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == cq.__version__

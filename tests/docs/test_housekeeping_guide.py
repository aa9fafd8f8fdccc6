"""The guide to housekeeping: its commands exist, its flags are accepted, its snippets run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class

from cq import conf, tasks
from cq.models import RepeatingTask
from cq.tasks import call_command_task

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "housekeeping.md"
TEXT = GUIDE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^\| `([^`]+)` \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_takes_its_arguments(line: str) -> None:
    name, *arguments = line.replace(" ID …", " 00000000-0000-0000-0000-000000000000").split()
    load_command_class("cq", name).create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("flag", ["--prior 7", "--dry-run", "--watch", "--lost"])
def test_each_flag_is_explained(flag: str) -> None:
    assert f"`{flag}`" in TEXT


def test_the_times_are_the_defaults() -> None:
    keys = conf.keys()
    assert (keys["SUCCESS_TTL"], keys["FAILURE_TTL"]) == (7 * 86400, 30 * 86400)
    assert "a success (7\ndays)" in TEXT
    assert "any other end (30 days)" in TEXT


def test_the_snippets_run(database: Any, settings: Any) -> None:
    names: dict[str, Any] = {}
    exec(SNIPPETS[0], names)
    assert names["rows"] == 0
    exec(SNIPPETS[1], names)
    assert conf.problems(names["CQ"]) == []
    exec(SNIPPETS[2], names)
    entry = RepeatingTask.objects.get()
    assert entry.func_name == call_command_task.name
    assert len(SNIPPETS) == 3


def test_each_task_exists() -> None:
    for name in ("clean_up", "clear_logs", "retry_tasks", "maintenance", "memory_details"):
        assert f"`{name}`" in TEXT
        assert hasattr(tasks, name)

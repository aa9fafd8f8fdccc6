"""The guide to repeating tasks: its snippets run, in order, as a reader would type them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps

from cq.definition import registry
from cq.definition.crontab import Crontab
from cq.models import RepeatingTask
from cq.workflow.schedule import fire_due

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "repeating.md"
TEXT = GUIDE.read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def shop() -> Iterator[dict[str, Any]]:
    """The reader's app: a module `shop.tasks` made of the first snippet."""
    package, tasks = ModuleType("shop"), ModuleType("shop.tasks")
    sys.modules |= {"shop": package, "shop.tasks": tasks}
    tasks.__dict__["__name__"] = "shop.tasks"
    exec(compile(SNIPPETS[0], "shop/tasks.py", "exec"), tasks.__dict__)
    yield {"close_day": tasks.__dict__["close_day"]}
    registry.unregister(tasks.__dict__["close_day"])
    del sys.modules["shop"], sys.modules["shop.tasks"]


def test_the_snippets_run(
    database: Any, shop: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    migration: dict[str, Any] = {}
    exec(SNIPPETS[1], migration)
    migration["schedule"](apps, None)
    migration["schedule"](apps, None)
    nightly = RepeatingTask.objects.get()
    assert (nightly.func_name, nightly.timezone) == ("shop.tasks.close_day", "Europe/Berlin")
    names = dict(shop)
    exec(SNIPPETS[2], names)
    assert "+00:00" in capsys.readouterr().out
    exec(SNIPPETS[3], names)
    assert names["started"].func_name == "shop.tasks.close_day"
    assert len(fire_due(nightly.next_run).tasks) == 1
    assert len(SNIPPETS) == 4


def test_the_crontabs_of_the_table_mean_what_it_says() -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", TEXT, re.MULTILINE))
    assert len(rows) == 4
    words = {text: Crontab.parse(text).words() for text in rows}
    assert words["30 2 * * *"].lower() == rows["30 2 * * *"]
    assert words["* * * * *"].lower() == rows["* * * * *"]
    assert words["*/10 9-17 * * 1-5"].startswith("Every 10 minutes, hour 9 to 17, Monday to Friday")
    assert "on day 1 of the month" in words["0 0 1 * *"]

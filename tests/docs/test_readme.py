"""The README, followed in an empty folder: what it adds to a project works as it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.docs.written_project import ROOT, Block, Project, blocks_of

BLOCKS = blocks_of(ROOT / "README.md")

READERS_OWN = """# config/settings.py, at the end
INSTALLED_APPS += ["shop"]
"""

ALL_IS_WELL = """
from datetime import timedelta
from django.test import RequestFactory
from django.test.utils import setup_test_environment
from cq.models import Task
from cq.testing import drain
from shop.views import letters as page

setup_test_environment()  # mails go nowhere
assert letters == 1
shown = page(RequestFactory().get("/")).content.decode()
assert '<cq-task task="' in shown and 'show="bar log"' in shown
drain(now=timedelta(hours=2))
statuses = list(Task.objects.values_list("func_name", "status"))
assert len(statuses) == 11 and {status for _, status in statuses} == {"S"}, statuses
"""
"""After the README's calls: the page shows its task, and all tasks end well (eleven with it)."""


def test_it_begins_with_two_commands() -> None:
    assert BLOCKS[0] == Block("console", "$ make demo\n$ make test\n")


def test_it_adds_cq_in_at_most_six_lines() -> None:
    added = [block for block in BLOCKS if block.first_line.startswith("# config/")]
    lines = [line for block in added for line in block.text.splitlines() if line]
    assert len([line for line in lines if not line.startswith("#")]) <= 6


@pytest.mark.timeout(120)
def test_what_it_says_works(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("django-admin startproject config .")
    project.run("python manage.py startapp shop")
    project.write(Block("python", READERS_OWN))
    for block in BLOCKS[1:]:
        if block.language == "console":
            for line, shown in block.commands:
                said = project.run(line, shown)
                # On SQLite the check asks for one more line, and prints it.
                assert "check" not in line or '"transaction_mode": "IMMEDIATE"' in said
        elif block.language and project.write(block) is None:
            code = block.text + ALL_IS_WELL
            project.run(shlex.join(["python", "manage.py", "shell", "-c", code]))

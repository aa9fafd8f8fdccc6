"""
A database of 2019: `migrate` refuses it and leaves it alone; the steps of the guide set it aside.

Each test has a database of its own on the vendor of the run, and types the guide's own statements.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from django.db.utils import ConnectionHandler

from tests.integration.legacy_2019 import MIGRATIONS, statements
from tests.settings import database_from
from tests.workers import ROOT

GUIDE = (ROOT / "docs" / "guides" / "upgrade-from-2019.md").read_text()
MIGRATE_OTHERS = """
from django.core.management import call_command
for app in ("contenttypes", "auth", "admin", "sessions", "sampleapp"):
    call_command("migrate", app, verbosity=0)
"""
SENTENCE = re.compile(
    r"CommandError: The database '[^']+' still holds the tables of the 2019 django-cq .*"
    r" as docs/guides/upgrade-from-2019\.md says\."
)


def block(language: str) -> str:
    """The block of the guide in that language, as it stands in the list of steps."""
    found = re.search(rf"^   ```{language}\n(.*?)^   ```", GUIDE, re.DOTALL | re.MULTILINE)
    assert found
    return re.sub(r"^   ", "", found[1], flags=re.MULTILINE)


class Site:
    """A project with a database of its own: its commands, and what is in its tables."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = ConnectionHandler({"default": database_from(url)})["default"]

    def manage(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "tests" / "manage.py"), *command],
            cwd=ROOT,
            env={**os.environ, "CQ_TEST_DATABASE_URL": self.url},
            capture_output=True,
            text=True,
        )

    def run(self, sql: str) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> list[str]:
        with self.connection.cursor() as cursor:
            return sorted(self.connection.introspection.table_names(cursor))

    def everything(self) -> dict[str, Any]:
        """Every table with its columns and rows."""
        found = {}
        for table in self.tables():
            with self.connection.cursor() as cursor:
                cursor.execute(f'SELECT * FROM "{table}"')
                columns = [column[0] for column in cursor.description]
                found[table] = columns, sorted(map(str, cursor.fetchall()))
        return found


@pytest.fixture
def site(request: pytest.FixtureRequest, database: Any, tmp_path: Path) -> Iterator[Site]:
    """A project of 2019: the tables of Django's own apps, and those of the old package."""
    name = f"cq_2019_{uuid4().hex[:8]}"
    if database.vendor == "sqlite":
        made = Site(f"sqlite:///{tmp_path / name}.sqlite3")
    else:
        with connections["default"].cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        made = Site(f"{database.url.rpartition('/')[0]}/{name}")
    done = made.manage("shell", "-c", MIGRATE_OTHERS)
    assert done.returncode == 0, done.stderr
    for statement in statements(database.vendor):
        made.run(statement)
    yield made
    made.connection.close()
    if database.vendor != "sqlite":
        with connections["default"].cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


@pytest.mark.long
def test_migrate_refuses_and_leaves_everything_as_it_was(site: Site) -> None:
    before = site.everything()
    for arguments in ((), ("cq",), ("--fake-initial",)):
        done = site.manage("migrate", "--no-input", *arguments)
        assert done.returncode == 1
        # Django 6.1 lets every system check speak first; the refusal is the last line alone.
        *warnings, refusal = done.stderr.strip().splitlines()
        assert SENTENCE.fullmatch(refusal), done.stderr
        assert "Traceback" not in "".join(warnings)
        assert site.everything() == before
    assert len(before["cq_task"][1]) == 2
    assert len([row for row in before["django_migrations"][1] if "'cq'" in row]) == 3


def test_the_first_migration_has_another_name_than_theirs() -> None:
    ours = {path.stem for path in (ROOT / "cq" / "migrations").glob("0*.py")}
    assert not ours & set(MIGRATIONS)


@pytest.mark.long
def test_the_steps_of_the_guide(site: Site) -> None:
    for statement in block("sql").split(";\n"):
        if statement.strip():
            site.run(statement)
    old = site.everything()["cq_task_2019"]
    done = site.manage("migrate", "--no-input", "-v", "0")
    assert done.returncode == 0, done.stderr
    assert site.everything()["cq_task_2019"] == old
    for _ in range(2):  # once more changes nothing
        done = site.manage("shell", "-c", block("python"))
        assert done.returncode == 0, done.stderr
    rows = site.run("SELECT crontab, func_name, coalesce, enabled FROM cq_repeatingtask ORDER BY 1")
    assert [(row[0], row[1], bool(row[2]), bool(row[3])) for row in rows] == [
        ("*/5 * * * *", "tests.sampleapp.tasks.echo", True, True),
        ("30 2 * * 1", "tests.sampleapp.tasks.noop", False, True),
    ]
    done = site.manage(
        "shell", "-v", "0", "-c", "from tests.sampleapp.tasks import echo; echo.delay(1)"
    )
    assert done.returncode == 0, done.stderr
    done = site.manage("cq_runworker", "--burst")
    assert done.returncode == 0, done.stderr
    assert site.run("SELECT status FROM cq_task") == [("S",)]
    for table in ("cq_task_2019", "cq_repeatingtask_2019"):
        site.run(f"DROP TABLE {table}")
    done = site.manage("migrate", "cq", "zero", "-v", "0")
    assert done.returncode == 0, done.stderr
    assert [table for table in site.tables() if table.startswith("cq_")] == []


@pytest.mark.long
def test_a_database_without_the_old_tables_is_migrated(site: Site) -> None:
    for table in ("cq_task", "cq_repeatingtask"):
        site.run(f"DROP TABLE {table}")
    site.run("DELETE FROM django_migrations WHERE app = 'cq'")
    assert site.manage("migrate", "--no-input", "-v", "0").returncode == 0
    assert "cq_logline" in site.tables()

"""Every command of cq whose database is away, empty or shut says so in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from cq.terminal.reaching import reach
from cq.worker.exit_codes import ExitCode
from tests.workers import ROOT

COMMANDS = [
    ["cq_check"],
    ["cq_check_lost"],
    ["cq_clear_logs"],
    ["cq_load_test", "--trunks", "1"],
    ["cq_maintenance"],
    ["cq_maintenance", "--clear"],
    ["cq_retry"],
    ["cq_retry", str(uuid4())],
    ["cq_run", "tests.sampleapp.tasks.noop"],
    ["cq_runworker", "--max-wait", "0"],
    ["cq_schedule"],
    ["cq_status"],
    ["cq_watch", "01"],
]
IN_ONE_PROCESS = """
import contextlib, io, json, sys
import django
django.setup()
from django.core.management import ManagementUtility
found = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    code = None
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        try:
            ManagementUtility(["manage.py", *words]).execute()
        except SystemExit as end:
            code = end.code
        except BaseException as problem:
            print("Traceback", repr(problem))
    found.append([code, out.getvalue()])
print(json.dumps(found))
"""


def said_by_all(url: str) -> dict[str, tuple[int | None, str]]:
    """What each command says, and its exit code, on the database of that address."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(COMMANDS)],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "CQ_TEST_DATABASE_URL": url,
            "CQ_TEST_LAYER": "none",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout)
    pairs = zip(COMMANDS, found, strict=True)
    return {" ".join(words): (code, text.strip()) for words, (code, text) in pairs}


def is_one_sentence(text: str) -> bool:
    """Whether it is a line of whole sentences, beside what the worker logs while it waits."""
    lines = [line for line in text.splitlines() if "Waiting for the database" not in line]
    return len(lines) == 1 and lines[0].endswith(".") and "Traceback" not in text


@pytest.mark.parametrize(
    ("url", "code", "phrase"),
    [
        ("sqlite:///{}/empty.sqlite3", ExitCode.MIGRATIONS, "Run python manage.py migrate."),
        ("sqlite:///{}/no/folder.sqlite3", ExitCode.UNREACHABLE, "unable to open database file."),
        ("postgresql://x:secret@127.0.0.1:1/cq", ExitCode.UNREACHABLE, "or correct DATABASES."),
    ],
    ids=["no tables", "no file", "no server"],
)
def test_a_database_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, url: str, code: int, phrase: str
) -> None:
    for words, (ended_with, text) in said_by_all(url.format(tmp_path)).items():
        assert ended_with == code, (words, text)
        assert phrase in text, (words, text)
        assert is_one_sentence(text), (words, text)
        assert "secret" not in text


@pytest.fixture
def read_only(database: Any) -> Iterator[None]:
    """The database of the test, for every session that begins from now on, takes no writes."""
    settings = connections.settings["default"]
    kept = settings["OPTIONS"]
    if connections["default"].vendor == "sqlite":
        settings["OPTIONS"] = {**kept, "init_command": "PRAGMA query_only=ON;"}
    else:
        settings["OPTIONS"] = {**kept, "options": "-c default_transaction_read_only=on"}
    yield
    settings["OPTIONS"] = kept


@pytest.mark.usefixtures("read_only")
def test_a_worker_is_not_started_where_it_can_write_nothing() -> None:
    told: list[str] = []
    found = reach(0.3, told.append)
    assert found is not None
    assert found.code == ExitCode.UNREACHABLE
    assert "took no writes within 0.3 s" in found.text
    assert is_one_sentence(found.text)
    assert told


@pytest.mark.usefixtures("database")
def test_a_database_that_takes_writes_is_in_nobodys_way() -> None:
    assert reach(0, pytest.fail) is None


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "words",
    [
        ["cq_check", "--instant", "-1"],
        ["cq_doctor", "--timeout", "nan"],
        ["cq_load_test", "--trunks", "0"],
        ["cq_load_test", "--timeout", "-3"],
        ["cq_maintenance", "--prior", "-1"],
        ["cq_run", "tests.sampleapp.tasks.noop", "--timeout", "-1"],
        ["cq_schedule", "next", "-n", "0"],
        ["cq_status", "--interval", "0"],
        ["cq_watch", "0", "--since", "-1"],
        ["cq_watch", "0", "--timeout", "nan"],
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_refused_with_its_range(words: list[str]) -> None:
    with pytest.raises(CommandError) as refused:
        call_command(*words)
    assert f"{words[-2]} is {words[-1]}. Expected " in str(refused.value)
    assert f"Write for example {words[-2]} " in str(refused.value)
    # 1 and 2 are ends of a task to those who watch one.
    watches = words[0] in ("cq_run", "cq_watch")
    assert refused.value.returncode == (3 if watches else ExitCode.USAGE)

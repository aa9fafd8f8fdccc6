"""docs/reference/historic.md goes through every name of 2019, each with tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_guarantees import functions_in
from tests.docs.written_project import ROOT

HISTORIC = (
    "@task",
    "fn(*a)",
    ".delay(*a, **k)",
    ".delay_args(args, kwargs, **opts)",
    "CQ_SERIAL",
    "CQ_CHANNEL_LAYER",
    "CQ_BACKEND='redis'",
    "Task fields",
    "Statuses",
    ".wait(timeout)",
    ".result",
    ".submit(*pre_args)",
    ".retry()",
    "automatic retry",
    ".revoke()",
    "cqt.subtask(fn, args, kwargs)",
    "return subtask/delay task",
    "child failure",
    ".chain(fn, args, kwargs, **kw)",
    "force_chain=True",
    ".errorback(fn, args, kwargs)",
    "atomic=True/False",
    "cqt.log(msg, level, publish=True, limit=40)",
    "log store",
    "result_ttl",
    "RepeatingTask",
    "coalesce",
    "schedule_task(RepeatingTask, cron, fn, args, kwargs)",
    "scheduler",
    "cq_runworker",
    "cq_maintenance --clear --failed --pending --lost --prior N --dry-run",
    "cq_retry",
    "cq_check_lost",
    "cq_load_test [--lost]",
    "tasks clean_up, clear_logs, retry_tasks, maintenance, call_command_task, memory_details",
    "Admin",
    "Task.objects.active()",
)
"""The API of 2019 row by row, but for its REST view, which is a package of its own now."""

PAGE = (ROOT / "docs" / "reference" / "historic.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]


def test_each_name_of_2019_has_its_row() -> None:
    found = [cell.replace("`", "") for cell, _, _ in ROWS]
    missing = [name for name in HISTORIC if not any(cell.startswith(name) for cell in found)]
    assert missing == []
    assert len(ROWS) == len(HISTORIC)


@pytest.mark.parametrize("row", ROWS, ids=[row[0].replace("`", "")[:30] for row in ROWS])
def test_each_row_has_a_sentence_and_tests_that_exist(row: list[str]) -> None:
    _, now, shown = row
    assert now.endswith((".", ")."))
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", shown)
    assert named
    assert ", ".join(f"`{path}::{name}`" for path, name in named) == shown
    for path, name in named:
        file = ROOT / "tests" / path
        assert file.exists(), path
        assert name.startswith("test_")
        assert name in functions_in(file), f"{path}::{name}"

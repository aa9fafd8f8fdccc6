"""`manage.py check` as a person runs it: sentences and hints, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MANAGE = Path(__file__).parents[1] / "manage.py"


def check(cq: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CQ_TEST_CQ": cq, "CQ_TEST_DB": "sqlite"}
    return subprocess.run(
        [sys.executable, str(MANAGE), "check", "--tag", "cq", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_a_project_that_is_fine() -> None:
    done = check('{"EMBEDDED": true}', "--deploy")
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("cq", "words"),
    [
        ('{"SLOT": 5}', "(cq.E001) CQ['SLOT'] is not a setting of cq."),
        ('{"SLOTS": "5"}', "(cq.E002) CQ['SLOTS'] is '5', which is not a whole number."),
    ],
)
def test_a_setting_that_cannot_be_used(cq: str, words: str) -> None:
    done = check(cq)
    assert done.returncode == 1
    assert words in done.stderr
    assert "HINT: " in done.stderr
    assert "Traceback" not in done.stderr

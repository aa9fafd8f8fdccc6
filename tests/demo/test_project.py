"""The demo as a project: its own tests, checks and migrations, run by its own manage.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def manage(folder: Path, *arguments: str) -> str:
    """Run a management command of the demo without any service; return what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}
    }
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "demo" / "manage.py"), *arguments],
        cwd=ROOT / "demo",
        env={**inherited, "PYTHONPATH": str(ROOT), "DEMO_DATA": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_the_project_passes_its_checks(tmp_path: Path) -> None:
    assert "no issues" in manage(tmp_path, "check", "--fail-level", "WARNING")


def test_its_migrations_are_complete(tmp_path: Path) -> None:
    assert "No changes detected" in manage(tmp_path, "makemigrations", "--check", "--dry-run")


@pytest.mark.timeout(120)
def test_its_own_tests_pass(tmp_path: Path) -> None:
    said = manage(tmp_path, "test", "picture")
    assert "\nOK" in said
    assert "ResourceWarning" not in said

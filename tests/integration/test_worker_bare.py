"""
A worker where there is neither fork nor a signal of POSIX, as on Windows.

`tests/bare` takes them away from cq in each of its processes; the other modules that cq needs
are left alone. What a worker must do there: be imported, run every kind of task, kill a child
that outstays its limit, and end in order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cq.definition.status import TERMINAL, Status
from cq.models import Task
from cq.testing import wait_for
from tests.sampleapp import kinds, trouble
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import where
from tests.workers import ROOT, WorkerFactory

WaitUntil = Callable[..., Any]

BARE = {"PYTHONPATH": str(ROOT / "tests" / "bare")}
SETTINGS = {"TASK_MODULES": [kinds.MODULE, trouble.MODULE], "HEARTBEAT": 0.5}
IMPORT_ALL = """
import os, sys
from importlib import import_module
from pathlib import Path
import django
django.setup()
for path in sorted(Path("cq").rglob("*.py")):
    if "migrations" not in path.parts:
        import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
from cq.definition import ids
from cq.worker import signals
assert ids.os.name == "nt" and not hasattr(ids.os, "fork")
assert not hasattr(signals.signal, "SIGHUP") and hasattr(signals.signal, "SIGTERM")
print("imported")
"""


def test_every_module_can_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        cwd=ROOT,
        env={**os.environ, **BARE, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "imported"), done.stderr


@pytest.mark.long
def test_every_kind_of_task_runs_and_the_worker_ends(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("--max-memory", "4000", cq=SETTINGS, env=BARE)
    tasks = {name: call() for name, call in kinds.ENQUEUE.items()}
    wait_until(lambda: not Task.objects.exclude(status__in=TERMINAL).exists(), timeout=40)
    for name, task in tasks.items():
        task.refresh_from_db()
        assert task.status == (Status.FAILURE if name == "errorback" else Status.SUCCESS), name
    doomed = trouble.doze_in_a_child.delay(60.0)
    begun = Effect.objects.filter(task=doomed.id).values_list("pid", flat=True)
    child = wait_until(begun.first, timeout=20)
    doomed.revoke()
    wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert wait_for(where.delay(), Status.SUCCESS, timeout=20).result == worker.pid
    assert worker.stop() == 0, worker.output()
    assert "AttributeError" not in worker.output()

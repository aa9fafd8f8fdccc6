"""Channels' stock `runworker` executes too: one at a time, with a warning."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from cq.definition.status import Status
from cq.models import Task, Worker
from cq.testing import wait_for
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import (
    begin_and_end,
    begin_and_end_async,
    calc_a,
    fan_out_effects,
    write_effect,
)
from tests.workers import WorkerFactory

WaitUntil = Callable[..., Any]


def test_a_stock_runworker_executes_serially(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    process = worker_process.manage(
        *("runworker", "--layer", "cq", "cq-tasks"),
        env={"DJANGO_SETTINGS_MODULE": "tests.stock_settings"},
    )
    tasks = [begin_and_end.delay(0.1), begin_and_end_async.delay(0.1)]
    tasks += [begin_and_end.delay(0.1), write_effect.delay(), fan_out_effects.delay(3)]
    last = calc_a.delay(3)
    for task in [*tasks, last]:
        wait_for(task, Status.SUCCESS, timeout=20)
    assert last.result == 2
    assert "one at a time" in process.output()
    assert Effect.objects.filter(kind="child").count() == 3
    spans = [
        list(Effect.objects.filter(task=task.id).order_by("at").values_list("kind", "at"))
        for task in tasks[:3]
    ]
    assert [[kind for kind, _ in span] for span in spans] == [["begin", "end"]] * 3
    ordered = sorted((span[0][1], span[1][1]) for span in spans)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(ordered))
    assert {task.attempts for task in Task.objects.all()} == {1}
    assert Worker.objects.get(alive=True).pid == process.pid
    process.send(signal.SIGTERM)
    process.process.wait(10)
    assert "Traceback" not in process.output()

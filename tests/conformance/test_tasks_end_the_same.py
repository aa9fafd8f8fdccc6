"""
One worker, every kind of task, every way to be rung: the ends are the same.

Runs on PostgreSQL and on SQLite. Without a layer, and with one in the memory of another
process, the rows are polled; the outcome must not depend on it.
"""

from __future__ import annotations

import pytest

from cq import Status
from tests.sampleapp import tasks
from tests.sampleapp.models import Effect, Note

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

FOLLOWED = {"POLL": 0.2}
ANY = object()

ENDS = [
    ("noop", (), Status.SUCCESS, None),
    ("noop_sync", (), Status.SUCCESS, None),
    ("noop_atomic", (), Status.SUCCESS, None),
    ("add", (1, 2), Status.SUCCESS, 3),
    ("add_async", (1, 2), Status.SUCCESS, 3),
    ("echo", ([1], {"a": None}), Status.SUCCESS, {"args": [[1], {"a": None}], "kwargs": {}}),
    ("where_in_a_child", (), Status.SUCCESS, ANY),
    ("write_effect", (), Status.SUCCESS, None),
    ("write_effect_unsafely", (), Status.SUCCESS, None),
    ("write_effect_async", (), Status.SUCCESS, None),
    ("commit_effect", (), Status.SUCCESS, "commit"),
    ("take_note", ("first", "taken"), Status.SUCCESS, ANY),
    ("fan_out", (5,), Status.SUCCESS, None),
    ("fan_out_sync", (5,), Status.SUCCESS, None),
    ("fan_out_effects", (3,), Status.SUCCESS, None),
    ("grow", (3, 2), Status.SUCCESS, None),
    ("adopt", (3,), Status.SUCCESS, 2),
    ("return_chain", (3,), Status.SUCCESS, 6),
    ("parent_of", ("noop", "fail"), Status.INCOMPLETE, None),
    ("fail", ("why",), Status.FAILURE, None),
    ("fail_async", ("why",), Status.FAILURE, None),
    ("write_and_fail", (), Status.FAILURE, None),
    ("return_the_unwritable", (), Status.FAILURE, None),
    ("outstay_async", (), Status.FAILURE, None),
    ("flaky", (3,), Status.SUCCESS, 3),
    ("flaky_async", (3,), Status.SUCCESS, 3),
    ("flaky", (99,), Status.FAILURE, None),
    ("track_items", ([1, 2],), Status.SUCCESS, [1, 2]),
    ("report_progress", (3,), Status.SUCCESS, None),
]
EFFECTS = {
    "atomic": 1,
    "plain": 1,
    "async": 1,
    "commit": 1,
    "parent": 1,
    "child": 3,
    "attempt": 3 + 6,
    "rolled back": 0,
}


@pytest.mark.parametrize("layer", ["redis", "stock", "memory", "none"])
def test_every_kind_of_task_ends_as_it_should(layer, use_layers, worker_process):
    use_layers(layer)
    worker = worker_process("-c", "20", "--threads", "4", cq=FOLLOWED)

    rows = [getattr(tasks, name).delay(*arguments) for name, arguments, _, _ in ENDS]
    for row in rows:
        row.wait(timeout=60)

    for row, (name, arguments, status, result) in zip(rows, ENDS, strict=True):
        said = f"{name}{arguments}: {row.error}"
        assert row.status == status, said
        assert result is ANY or row.result == result, said
        assert (row.error is None) is (status == Status.SUCCESS), said
    for kind, count in EFFECTS.items():
        assert Effect.objects.filter(kind=kind).count() == count, kind
    assert Note.objects.count() == 1
    assert worker.stop() == 0

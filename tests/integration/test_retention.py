"""Retention: what goes, what stays, in which portions, and that nobody is kept waiting."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from cq.definition.ids import uuid7
from cq.definition.status import Status
from cq.models import LogLine, Progress, Stream, Task, Worker
from cq.worker.pruner import Pruner
from cq.workflow.retention import clear, clear_orphans, count_clearable, prune
from cq.workflow.upkeep import exhaust

pytestmark = pytest.mark.usefixtures("database")

DAY = timedelta(days=1)
on_postgres = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="about row locks and plans, which SQLite has not"
)


def ended(**changes: Any) -> Task:
    """A task that ended and expired a day ago, unless said otherwise."""
    now = timezone.now()
    values: dict[str, Any] = {
        "func_name": "sample",
        "status": Status.SUCCESS,
        "finished": now - 2 * DAY,
        "result_expiry": now - DAY,
    }
    return Task.objects.create(**{**values, **changes})


def still_open(**changes: Any) -> Task:
    return ended(status=Status.QUEUED, finished=None, result_expiry=None, **changes)


def child_of(parent: Task, **changes: Any) -> Task:
    return ended(parent=parent, root_id=parent.root_uuid, depth=parent.depth + 1, **changes)


def with_lines(task: Task, count: int) -> Task:
    root = task.root_uuid
    Stream.objects.create(root=root, seq=count, open=False)
    LogLine.objects.bulk_create(
        LogLine(root=root, seq=n, task=task.pk, func_name="sample", message="x")
        for n in range(1, count + 1)
    )
    Progress.objects.create(task=task.pk, root=root, done=1)
    return task


def rows() -> list[int]:
    return [model.objects.count() for model in (Task, LogLine, Stream, Progress)]


def test_an_expired_tree_goes_with_all_that_belongs_to_it() -> None:
    root = with_lines(ended(), 3)
    child_of(child_of(root))
    Progress.objects.create(task=child_of(root).pk, root=root.pk)
    assert prune() == 3 + 4
    assert rows() == [0, 0, 0, 0]
    assert prune() == 0


def test_what_is_not_expired_stays() -> None:
    later = timezone.now() + DAY
    ended(result_expiry=later)
    still_open()
    Task.objects.create(func_name="queued")
    assert prune() == 0
    assert Task.objects.count() == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.QUEUED, "finished": None, "result_expiry": None},
        {"status": Status.FAILURE, "result_expiry": timezone.now() + 20 * DAY},
    ],
    ids=["open", "kept longer"],
)
def test_a_tree_stays_whole_while_one_of_its_tasks_must(changes: dict[str, Any]) -> None:
    root = with_lines(ended(), 2)
    child_of(root)
    child_of(child_of(root), **changes)
    assert prune() == 0
    assert rows() == [4, 2, 1, 1]


def test_a_chain_stays_until_its_last_link_has_ended() -> None:
    head = ended()
    link = still_open(root=head, previous=head)
    assert prune() == 0
    Task.objects.filter(pk=link.pk).update(
        status=Status.REVOKED, finished=timezone.now(), result_expiry=timezone.now() - DAY
    )
    assert prune() == 2


def test_a_big_tree_goes_in_portions_and_its_root_last() -> None:
    root = with_lines(ended(), 120)
    for _ in range(120):
        child_of(root)
    portions = []
    while gone := prune(50):
        portions.append(gone)
        assert gone <= 150
    assert len(portions) >= 5
    assert sum(portions) == 241
    assert rows() == [0, 0, 0, 0]


@on_postgres
@pytest.mark.parametrize("which", ["root", "child"])
def test_what_somebody_holds_is_passed_over(which: str) -> None:
    root, other = ended(), ended()
    held = {"root": root, "child": child_of(root)}[which]
    locked, released = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            list(Task.objects.select_for_update(no_key=True).filter(pk=held.pk))
            locked.set()
            released.wait(10)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    prune()
    left = set(Task.objects.values_list("pk", flat=True))
    released.set()
    holder.join()
    assert {root.pk, held.pk} <= left
    assert other.pk not in left
    assert exhaust(prune) == len(left)


@on_postgres
def test_a_link_added_meanwhile_keeps_the_tree() -> None:
    """Whoever chains onto a row holds its lock; pruning looks again after taking its own."""
    head = ended()
    with transaction.atomic():
        list(Task.objects.select_for_update(no_key=True).filter(pk=head.pk))
        still_open(root=head, previous=head)
        pruned: list[int] = []
        other = threading.Thread(target=lambda: (pruned.append(prune()), connections.close_all()))
        other.start()
        other.join()
    assert pruned == [0]
    assert prune() == 0
    assert Task.objects.count() == 2


def test_many_pruners_share_the_work() -> None:
    for _ in range(60):
        child_of(ended())
    totals: list[int] = []

    def work() -> None:
        totals.append(exhaust(lambda: prune(500)))
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exhaust(prune)
    assert sum(totals) <= 120
    assert Task.objects.count() == 0


@pytest.mark.exhaustive
def test_no_portion_takes_200_ms() -> None:
    now = timezone.now()
    roots = [Task(func_name="sample", id=uuid7()) for _ in range(2000)]
    for root in roots:
        root.status, root.finished, root.result_expiry = Status.SUCCESS, now, now - DAY
    Task.objects.bulk_create(roots, batch_size=1000)
    LogLine.objects.bulk_create(
        (
            LogLine(root=root.pk, seq=n, task=root.pk, func_name="sample", message="line " * 10)
            for root in roots
            for n in range(1, 11)
        ),
        batch_size=2000,
    )
    slowest = 0.0
    while True:
        began = time.perf_counter()
        gone = prune()
        slowest = max(slowest, time.perf_counter() - began)
        if not gone:
            break
    assert Task.objects.count() == 0
    assert slowest < 0.2


def test_dead_workers_go_when_no_task_names_them() -> None:
    long_ago = timezone.now() - 2 * DAY
    gone = Worker.objects.create(alive=False)
    named = Worker.objects.create(alive=False)
    fresh = Worker.objects.create(alive=False)
    alive = Worker.objects.create(alive=True)
    Worker.objects.exclude(pk=fresh.pk).update(beat_at=long_ago)
    Task.objects.create(func_name="sample", worker=named)
    assert prune() == 1
    assert set(Worker.objects.values_list("pk", flat=True)) == {named.pk, fresh.pk, alive.pk}
    assert gone.pk is not None


def test_clear_takes_states_and_ages_and_spares_open_trees() -> None:
    now = timezone.now()
    kept_for_long = {"result_expiry": now + 99 * DAY}
    success, failure = ended(**kept_for_long), ended(status=Status.FAILURE, **kept_for_long)
    young = ended(**kept_for_long)
    waiting = ended(**kept_for_long)
    still_open(root=waiting, parent=waiting)
    Task.objects.exclude(pk=young.pk).update(submitted=now - 10 * DAY)
    before = now - 5 * DAY
    assert count_clearable([Status.SUCCESS], before) == 1
    assert clear([Status.SUCCESS], before) == 1
    assert clear([Status.QUEUED], before) == 0
    left = set(Task.objects.roots().values_list("pk", flat=True))
    assert left == {failure.pk, young.pk, waiting.pk}
    assert success.pk not in left


def test_orphans_of_rows_deleted_by_hand_are_cleared() -> None:
    kept = with_lines(ended(result_expiry=None), 2)
    gone = with_lines(ended(), 3)
    Task.objects.filter(pk=gone.pk).delete()
    assert clear_orphans(2) == 2
    assert exhaust(clear_orphans) == 3
    assert rows() == [1, 2, 1, 1]
    assert LogLine.objects.filter(root=kept.pk).count() == 2


@on_postgres
def test_an_idle_prune_reads_the_expiry_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO cq_task (func_name) SELECT 'sample' FROM generate_series(1, 20000)"
        )
        cursor.execute("ANALYZE cq_task")
        cursor.execute(
            "EXPLAIN SELECT t.id FROM cq_task AS t WHERE t.root_id IS NULL AND t.finished IS NOT "
            "NULL AND t.result_expiry <= now() ORDER BY t.result_expiry LIMIT 500"
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "cq_task_expiry" in plan, plan


def test_a_prune_reads_past_no_expired_child_of_a_tree_that_is_kept() -> None:
    root = ended(result_expiry=timezone.now() + DAY)
    for _ in range(50):
        child_of(root)
    explain, settings, now = "EXPLAIN QUERY PLAN", (), "strftime('%Y-%m-%d')"
    if connection.vendor == "postgresql":
        explain, now = "EXPLAIN (ANALYZE)", "now()"
        settings = ("SET LOCAL enable_seqscan = off", "SET LOCAL enable_bitmapscan = off")
    with transaction.atomic(), connection.cursor() as cursor:
        for setting in settings:
            cursor.execute(setting)
        cursor.execute(
            f"{explain} SELECT t.id FROM cq_task AS t WHERE t.root_id IS NULL AND t.finished IS "
            f"NOT NULL AND t.result_expiry <= {now} ORDER BY t.result_expiry LIMIT 500"
        )
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "cq_task_expiry" in plan, plan
    assert "Removed by Filter" not in plan, plan
    assert prune() == 0


# --- the service --------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "least", "most"), [(0, 48, 72), (499, 48, 72), (500, 0, 1)])
async def test_the_pruner_goes_on_while_portions_are_full(
    gone: int, least: float, most: float
) -> None:
    async def lane(fn: Any) -> int:
        return gone

    pruner = Pruner(lane)
    assert least <= await pruner.look() <= most
    assert pruner.pruned == gone


async def test_the_pruner_survives_its_database() -> None:
    async def lane(fn: Any) -> int:
        raise OperationalError("gone")

    assert await Pruner(lane).look() > 1

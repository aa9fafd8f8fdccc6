"""
What a claim costs does not grow with what lies in the table, also without statistics.

The table is filled by generate_series and never analyzed. Costs are the server's own
execution times, the best of several, so that a busy machine does not decide the ratio.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction

from cq.aio import Threads
from cq.definition import registry
from cq.definition.outcome import Succeeded
from cq.models.sessions import own_sessions
from cq.models.transitions import Want
from cq.workflow.claim import claim, seconds_to_next
from cq.workflow.completion import complete
from cq.workflow.rescue import end_overdue, park_unroutable, rescue_tasks
from cq.workflow.retry import retry
from cq.workflow.revoke import revoke
from tests.conformance.driving import Hand, failure, fresh
from tests.conformance.test_sessions import prepared
from tests.sampleapp.tasks import echo, noop
from tests.settings import DATABASE_KIND

SLOTS = 20
LOOKS = 7
on_postgres = pytest.mark.skipif(DATABASE_KIND != "postgres", reason="about plans of PostgreSQL")


@pytest.fixture
def unanalyzed(database: object) -> Iterator[None]:
    """The task table without statistics, and with nobody who would gather any."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cq_task SET (autovacuum_enabled = false)")
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'cq_task'::regclass")
    yield
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE cq_task")
        cursor.execute("ALTER TABLE cq_task RESET (autovacuum_enabled)")


def fill(count: int, func_name: str = noop.name, *, priority: int = 0, hours: int = 0) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO cq_task (func_name, priority, run_at) "
            "SELECT %s, %s, now() + %s * interval '1 hour' FROM generate_series(1, %s)",
            [func_name, priority, hours, count],
        )


def plan_of(sql: str, params: Any, *, run: bool = False) -> list[str]:
    """How PostgreSQL carries a statement out; what it changed is rolled back."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {'(ANALYZE)' if run else ''} {sql}", params)
        plan = [row[0] for row in cursor.fetchall()]
        transaction.set_rollback(True)
    return plan


def cost(queues: Sequence[str] | None, *, is_small: bool) -> float:
    """The best server time of a full claim in milliseconds, after a look at its plan."""
    hand, times = Hand(), []
    wants = [Want(registry.names(), SLOTS)]
    for _ in range(LOOKS):
        seen: list[tuple[str, Any]] = []

        def note(execute: Any, sql: str, params: Any, *rest: Any, seen: Any = seen) -> Any:
            seen.append((sql, params))
            return execute(sql, params, *rest)

        with connection.execute_wrapper(note):
            assert len(claim(hand.row.pk, wants, queues)) == SLOTS
        ((sql, params),) = seen
        plan = plan_of(sql, params, run=True)
        text = "\n".join(plan)
        assert "cq_task_due" in text
        assert is_small or "Seq Scan on cq_task" not in text
        assert "JIT" not in text
        times.append(float(plan[-1].split()[-2]))
    return min(times)


def both_costs(*, is_small: bool = False) -> float:
    """The dearer of a claim that names its queues and of one that serves all."""
    return max(cost(queues, is_small=is_small) for queues in (["default"], None))


@on_postgres
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(50_000, marks=pytest.mark.long),
        pytest.param(1_000_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(300)]),
    ],
)
@pytest.mark.usefixtures("unanalyzed")
def test_a_claim_of_20_stays_flat(size: int) -> None:
    fill(1_000)
    small = both_costs(is_small=True)
    bound = 5 * max(small, 1.0)
    fill(size)
    assert both_costs() < bound, "queued rows"
    fill(size * 3 // 10, priority=100, hours=1)
    assert both_costs() < bound, "future rows of top priority"
    fill(size * 3 // 10, "nobody.knows", priority=50)
    assert park_unroutable() == size * 3 // 10
    # What was parked has left dead entries at the head of the index, which a claim passes one by
    # one until autovacuum, which the fixture keeps off, removes them. No statistics are gathered.
    with connection.cursor() as cursor:
        cursor.execute("VACUUM cq_task")
    assert both_costs() < bound, "rows of a name that nobody registers"
    assert 3000 < seconds_to_next(["default"]) <= 3600


@on_postgres
@pytest.mark.long
@pytest.mark.usefixtures("unanalyzed")
def test_plans_prepared_on_an_empty_table_stay_good() -> None:
    """A worker prepares each statement once, often before the first task is enqueued."""
    lane = Threads(1, "cq-test", own_sessions)

    def turns(count: int) -> list[float]:
        hand, times = Hand(), []
        for _ in range(count):
            noop.using(priority=1).delay()
            began = time.perf_counter()
            (id,) = hand.claim(1)
            hand.run(id)
            seconds_to_next(["default"])
            times.append(1000 * (time.perf_counter() - began))
        return times

    try:
        small = min(lane.submit(turns, LOOKS).result(30))
        fill(100_000)
        fill(30_000, priority=100, hours=1)
        assert min(lane.submit(turns, LOOKS).result(30)) < 3 * max(small, 1.0)
        assert lane.submit(prepared).result(5) >= 5
    finally:
        lane.shutdown()


@pytest.mark.usefixtures("unanalyzed")
@pytest.mark.contradictory
@pytest.mark.parametrize("analyzed", [False, True], ids=["un-analyzed", "analyzed"])
def test_no_statement_of_the_engine_reads_the_whole_table(analyzed: bool) -> None:
    some_id = "gen_random_uuid()"
    if connection.vendor == "sqlite":
        some_id = "lower(hex(randomblob(16)))"
    with connection.cursor() as cursor:
        for link in ("id", "parent_id", "previous_id", "root_id"):
            cursor.execute(
                f"INSERT INTO cq_task (func_name, status, {link}) WITH RECURSIVE n(i) AS "
                "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) "
                f"SELECT %s, %s, {some_id} FROM n",
                [noop.name, "Q" if link == "id" else "P"],
            )
        if analyzed:
            cursor.execute("ANALYZE cq_task")
    statements: dict[str, Any] = {}

    def note(execute: Any, sql: str, params: Any, *rest: Any) -> Any:
        if "cq_task" in sql and sql.lstrip().startswith(("SELECT", "UPDATE", "WITH", "INSERT")):
            statements.setdefault(sql, params)
        return execute(sql, params, *rest)

    with connection.execute_wrapper(note):
        _a_full_life()
    assert len(statements) > 20
    read_whole = {sql: _whole_reads(sql, params) for sql, params in statements.items()}
    assert not {sql: steps for sql, steps in read_whole.items() if steps}


def _whole_reads(sql: str, params: Any) -> list[str]:
    """The steps of a statement's plan that read all of the task table, or all of an index."""
    if connection.vendor == "postgresql":
        plan = [*plan_of(sql, params), ""]
        return [
            step
            for step, below in pairwise(plan)
            if "Seq Scan on cq_task" in step
            or ("Index" in step and "using cq_task_pkey" in step and "Index Cond" not in below)
        ]
    if "NOT (t.func_name" in sql or "t.parked" in sql:
        # Names that nobody registers are looked for among all that waits there.
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
        steps = [row[3] for row in cursor.fetchall()]
    return [step for step in steps if re.match(r"SCAN (cq_task|[tkmnc])\b(?! VIRTUAL)", step)]


def _a_full_life() -> None:
    """Everything the engine does with a few rows, among so many others."""
    hand = Hand(names=[echo.name])
    urgent = echo.using(priority=9)
    root = urgent.delay("root")
    root.chain(echo, "behind")
    root.errorback(print_error)
    twin = echo.using(priority=9, coalesce=True, expires=3600).delay("twin")
    echo.using(coalesce=True).delay("twin")
    (first, second) = hand.claim(2)
    hand.run(first, lambda cqt: [cqt.log("x"), cqt.subtask(urgent.signature("a")), 0][1])
    hand.end(second, failure())
    retry(twin.id)
    (child, again) = hand.claim(2)
    late = urgent.delay("late")
    hand.run(child, lambda cqt: late)
    hand.claim(1)
    complete([hand.ending(claimed, Succeeded()) for claimed in list(hand.held.values())])
    other = urgent.delay("other")
    other.subtask(echo, "below")
    revoke(other.id)
    hand.claim(1)
    hand.die()
    rescue_tasks()
    end_overdue()
    assert fresh(root).status in ("S", "I")
    assert again is not None


def print_error(task: Any, error: str | None) -> None:
    """An errorback."""

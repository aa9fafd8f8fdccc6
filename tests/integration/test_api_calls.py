"""The ways to enqueue: the row is the caller's, its id known at once, and bad input writes none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.utils import timezone

import cq.models
from cq import task
from cq.definition.status import Status
from cq.errors import InvalidArguments, InvalidOption, TaskNotRegistered
from cq.models import Task
from cq.testing import drain
from tests.sampleapp.tasks import add, add_async, echo, noop

pytestmark = pytest.mark.usefixtures("database")


@task(coalesce=True)
def index(cqt: Any, number: int) -> int:
    return number


@task(coalesce="active")
async def refresh(cqt: Any, *args: Any, **kwargs: Any) -> None: ...


# --- delay and its kin --------------------------------------------------------------------------


def test_delay_returns_the_row() -> None:
    before = timezone.now()
    made = add.delay(1, second=2)
    assert isinstance(made, Task)
    assert isinstance(made.id, UUID)
    assert made.func_name == "tests.sampleapp.tasks.add"
    assert (made.args, made.kwargs, made.status) == ([1], {"second": 2}, Task.STATUS_QUEUED)
    assert before - timedelta(seconds=5) < made.submitted < timezone.now() + timedelta(seconds=5)
    row = Task.objects.get(id=made.id)
    for field in Task._meta.concrete_fields:
        assert getattr(row, field.attname) == getattr(made, field.attname), field.attname
    assert row.status == "Q"


def test_a_row_exists_from_the_commit_and_never_after_a_roll_back() -> None:
    with transaction.atomic():
        kept = add.delay(1)
        with transaction.atomic():
            lost = add.delay(2)
            assert Task.objects.filter(id=lost.id).exists()
            transaction.set_rollback(True)
    assert Task.objects.get().id == kept.id
    assert [ran.id for ran in drain()] == [kept.id]


@pytest.fixture
def other_database(tmp_path: Path) -> Iterator[str]:
    """A second database, on which no task lives."""
    entry = connections.settings["default"]
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "x"), "OPTIONS": {}}
    connections.settings["other"] = {**entry, **engine}
    yield "other"
    connections["other"].close()
    del connections["other"], connections.settings["other"]


def test_a_roll_back_on_another_database_takes_no_task_along(other_database: str) -> None:
    with transaction.atomic(using=other_database):
        add.delay(1)
        transaction.set_rollback(True, using=other_database)
    assert [ran.result for ran in drain()] == [1]


async def test_adelay() -> None:
    made = await add_async.adelay(1, second=2)
    assert (await Task.objects.aget()).id == made.id
    assert (await add.using(queue="slow").adelay(1)).queue == "slow"
    assert (await add.adelay_args((1,), {"second": 5}, priority=3)).priority == 3


def test_the_historic_delay() -> None:
    assert cq.models.delay(add, (1,), {"second": 2}).args == [1]
    assert cq.models.delay("tests.sampleapp.tasks.add", [1]).func_name == add.name
    assert cq.models.delay(add.body, (1,)).func_name == add.name
    assert cq.models.delay(add.signature(1), kwargs={"second": 3}).kwargs == {"second": 3}
    held = cq.models.delay(add, (1,), None, False)
    assert held.status == Status.PENDING
    assert drain()[-1].result == 4
    held.refresh_from_db()
    assert held.status == Status.PENDING


def test_delay_many_is_one_insert(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        made = add.delay_many([((n,), {}) for n in range(50)] + [echo.signature("x", a=1)])
    assert [one.args for one in made] == [[n] for n in range(50)] + [["x"]]
    assert made[-1].func_name == echo.name
    assert Task.objects.count() == 51
    assert add.delay_many([]) == []
    assert {one.status for one in drain()} == {Status.SUCCESS}


def test_delay_many_is_all_or_none() -> None:
    with pytest.raises(InvalidArguments, match="missing a required argument"):
        add.delay_many([((1,), {}), ((), {})])
    with pytest.raises(InvalidArguments, match=r"^calls\[1\]: args\[0\]: bytes") as caught:
        add.delay_many([((1,), {}), add.signature(b"x")])
    assert caught.value.facts == {"path": "args[0]", "call": 1}
    assert not Task.objects.exists()


async def test_adelay_many() -> None:
    made = await add.adelay_many([((1,), {}), add_async.signature(2)])
    assert [one.func_name for one in made] == [add.name, add_async.name]


def test_using_names_everything_a_call_may_say() -> None:
    made = add.using(
        queue="slow",
        priority=-7,
        retries=2,
        timeout=1.5,
        result_ttl=60,
        owner=7,
        unique_key="the one",
        expires=timedelta(hours=1),
    ).delay(1)
    row = Task.objects.get()
    assert (row.queue, row.priority, row.max_retries, row.timeout) == ("slow", -7, 2, 1.5)
    assert (row.result_ttl, row.owner) == (60, "7")
    assert row.expires_at is not None
    assert abs(row.expires_at - row.submitted - timedelta(hours=1)) < timedelta(seconds=5)
    assert made.id == row.id


# --- when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [3600, 3600.0, timedelta(hours=1)])
def test_run_after_a_span(span: Any) -> None:
    made = noop.using(run_after=span).delay()
    assert abs(made.run_at - made.submitted - timedelta(hours=1)) < timedelta(seconds=1)
    assert drain() == []
    assert [one.id for one in drain(now=timedelta(hours=1, minutes=1))] == [made.id]


def test_run_after_a_moment() -> None:
    when = timezone.now() + timedelta(days=400)
    made = noop.using(run_after=when).delay()
    assert made.run_at == when
    assert drain(now=when - timedelta(seconds=5)) == []
    assert len(drain(now=when)) == 1


def test_the_past_is_now() -> None:
    noop.using(run_after=datetime(2001, 1, 1, tzinfo=UTC)).delay()
    assert len(drain()) == 1


@pytest.mark.parametrize("options", [{"run_after": -1}, {"run_after": "soon"}, {"queue": "a b"}])
def test_an_impossible_option_writes_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        noop.using(**options).delay()
    with pytest.raises(InvalidOption, match=next(iter(options))):
        noop.delay_args((), **options)
    assert not Task.objects.exists()


# --- bad input ----------------------------------------------------------------------------------


def test_a_model_instance_is_refused_with_the_way_out() -> None:
    user = User(username="ada")
    with pytest.raises(InvalidArguments, match=r"^args\[1\]\.user: User instance; pass user\.pk\."):
        echo.delay(1, {"user": user})
    with pytest.raises(InvalidArguments, match=r"^kwargs\.user: User instance; pass user\.pk\."):
        echo.delay(user=user)
    with pytest.raises(InvalidArguments, match=r"args\[0\]: QuerySet; pass list\(value\.values_l"):
        echo.delay(User.objects.all())
    assert not Task.objects.exists()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(TaskNotRegistered, match=r"The nearest is 'tests\.sampleapp\.tasks\.add'"):
        cq.models.delay("tests.sampleapp.tasks.ad")
    assert not Task.objects.exists()


def test_arguments_that_are_too_large(settings: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"262,144"):
        echo.delay("x" * 300_000)
    settings.CQ = {"MAX_ARGS_BYTES": 10}
    with pytest.raises(InvalidArguments, match="the limit is 10; store the data and pass its id"):
        echo.delay("x" * 20)
    assert not Task.objects.exists()


@pytest.mark.parametrize("role", ["parent", "previous"])
def test_relatives_that_are_not_there(role: str) -> None:
    with pytest.raises(InvalidOption, match=rf"No task .* to be the {role} of"):
        noop.delay_args((), **{role: uuid4()})
    with pytest.raises(InvalidOption, match=f"{role} is 'me', which names no task"):
        noop.delay_args((), **{role: "me"})
    assert not Task.objects.exists()


def test_what_comes_in_comes_back() -> None:
    value = {"text": "ü\u2028", "n": [1, -(2**63), 2**63 - 1, 1.5, 1e-9, True, None], "deep": [[]]}
    made = echo.delay(value, key=value)
    (ran,) = drain()
    assert (ran.args, ran.kwargs) == ([value], {"key": value})
    assert ran.result == {"args": [value], "kwargs": {"key": value}}
    assert made.wait() == ran.result


# --- coalescing ---------------------------------------------------------------------------------


def test_a_coalesced_delay_returns_the_task_it_merged_with() -> None:
    first = index.delay(1)
    second = index.delay(1)
    other = index.delay(2)
    assert (second.id, second.is_merged, first.is_merged) == (first.id, True, False)
    assert other.id != first.id
    assert Task.objects.count() == 2
    drain()
    assert index.delay(1).id != first.id


def test_true_merges_with_what_has_not_started_active_also_with_what_runs() -> None:
    started = index.delay(1)
    running = refresh.delay(1)
    Task.objects.update(status="R", claim_token=uuid4())
    assert index.delay(1).id != started.id
    assert refresh.delay(1).id == running.id


def test_a_call_may_coalesce_by_itself() -> None:
    assert noop.using(coalesce=True).delay().id == noop.using(coalesce=True).delay().id
    assert index.using(coalesce=False).delay(1).id != index.using(coalesce=False).delay(1).id
    first = add.using(unique_key="totals").delay(1)
    assert add.using(unique_key="totals").delay(2).id == first.id
    assert first.args == [1]


def test_equal_calls_within_delay_many() -> None:
    made = index.delay_many([((1,), {}), ((2,), {}), ((1,), {})])
    assert made[0].id == made[2].id != made[1].id
    assert [one.is_merged for one in made] == [False, False, True]
    assert Task.objects.count() == 2


def test_a_key_may_be_long() -> None:
    key = "x" * 1_000_000
    assert noop.using(unique_key=key).delay().id == noop.using(unique_key=key).delay().id


# --- rows from elsewhere ------------------------------------------------------------------------


def test_a_row_of_plain_sql_runs() -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO cq_task (func_name) VALUES (%s)", [noop.name])
        cursor.execute(
            "INSERT INTO cq_task (func_name, args, kwargs) VALUES (%s, %s, %s)",
            [add.name, json.dumps([3]), json.dumps({"second": 4})],
        )
    ran = drain()
    assert {one.status for one in ran} == {Status.SUCCESS}
    assert [one.result for one in ran.named(add)] == [7]


def test_a_row_by_the_orm_runs() -> None:
    Task.objects.create(func_name=add.name, args=[1, 1])
    assert drain()[0].result == 2


def test_active_tasks() -> None:
    done, held = add.delay(1), add.delay_args((1,), submit=False)
    drain()
    waiting = add.using(run_after=60).delay(1)
    assert set(Task.objects.active().values_list("id", flat=True)) == {held.id, waiting.id}
    assert set(Task.objects.roots()) == set(Task.objects.all())
    done.refresh_from_db()
    assert done.is_terminal

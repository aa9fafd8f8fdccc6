"""Repeating tasks as rows: what saving and schedule_task() check, derive and refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, migrations, models
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from cq.definition import registry
from cq.errors import (
    EditConflict,
    InvalidArguments,
    InvalidCrontab,
    InvalidOption,
    InvalidTask,
    TaskNotRegistered,
)
from cq.models import RepeatingTask, Task, schedule_task
from cq.workflow.schedule import fire_due
from tests.sampleapp.tasks import add, echo, noop

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def entry(**changes: Any) -> RepeatingTask:
    """An entry whose next tick is at NOON, hourly unless said otherwise."""
    values: dict[str, Any] = {"func_name": noop.name, "crontab": "0 * * * *"} | changes
    made = RepeatingTask.objects.create(**values)
    RepeatingTask.objects.filter(pk=made.pk).update(next_run=NOON)
    made.refresh_from_db()
    return made


# --- saving -------------------------------------------------------------------------------------


def test_saving_fills_in_the_name_and_a_next_run_later_than_now() -> None:
    made = RepeatingTask.objects.create(func_name=add.name, args=[1], kwargs={"second": 2})
    assert made.name == f"{add.name}(1, second=2) * * * * *"
    assert made.next_run is not None
    assert timedelta() < made.next_run - timezone.now() <= MINUTE
    assert (made.crontab, made.timezone, made.version) == ("* * * * *", "UTC", 1)


def test_a_dotted_path_of_a_registered_task_is_a_name_too() -> None:
    made = RepeatingTask.objects.create(func_name=registry.lookup(noop.name).path)
    assert fire_due(made.next_run).tasks


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"func_name": "os.system"}, TaskNotRegistered, "os.system"),
        ({"crontab": "99 * * * *"}, InvalidCrontab, "minute"),
        ({"crontab": "0 0 30 2 *"}, InvalidCrontab, "never fires"),
        ({"timezone": "Mars/X"}, InvalidOption, "Mars/X"),
        ({"func_name": "add", "args": [1, 2, 3]}, InvalidArguments, "too many positional"),
        ({"func_name": "add", "kwargs": {"frist": 1}}, InvalidArguments, "frist|first"),
        ({"args": {"a": 1}}, InvalidArguments, "args is"),
        ({"func_name": "add", "args": ["x" * 300_000]}, InvalidArguments, "the limit is"),
        ({"crontab": None}, InvalidCrontab, "None is no text"),
        ({"queue": "two words"}, InvalidOption, "two words"),
        ({"priority": 101}, InvalidOption, "101"),
        ({"result_ttl": -1}, InvalidOption, "-1"),
    ],
)
def test_what_could_not_fire_is_not_saved(
    values: dict[str, Any], error: type[Exception], words: str
) -> None:
    if values.get("func_name") == "add":
        values = {**values, "func_name": add.name}
    with pytest.raises(error, match=words):
        RepeatingTask.objects.create(**{"func_name": noop.name, **values})
    assert not RepeatingTask.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("func_name", "os.system"),
        ("crontab", "0 0 30 2 *"),
        ("timezone", "../../etc/passwd"),
        ("queue", "two words"),
        ("priority", 101),
        ("result_ttl", -1),
        ("args", [1, 2, 3]),
        ("kwargs", {"frist": 1}),
    ],
)
def test_clean_names_the_field(field: str, value: Any) -> None:
    values = {"func_name": add.name, "args": [1], field: value}
    with pytest.raises(ValidationError) as caught:
        RepeatingTask(**values).full_clean()
    assert field in caught.value.message_dict
    assert "os" not in {name.partition(".")[0] for name in registry.names()}


def test_editing_the_arguments_neither_skips_nor_repeats_a_tick() -> None:
    hourly = entry(func_name=echo.name)
    hourly.args = [1]
    hourly.save()
    hourly.refresh_from_db()
    assert (hourly.next_run, hourly.version) == (NOON, 2)
    [task] = fire_due(NOON).tasks
    assert task.args == [1]
    hourly.args = [2]
    hourly.save()
    assert fire_due(NOON).tasks == []
    assert hourly.next_run == NOON + 60 * MINUTE


@pytest.mark.parametrize("change", [{"crontab": "5 * * * *"}, {"timezone": "Asia/Kolkata"}])
def test_editing_the_schedule_never_fires_retroactively(change: dict[str, str]) -> None:
    hourly = entry()
    for field, value in change.items():
        setattr(hourly, field, value)
    hourly.save()
    assert hourly.next_run is not None
    assert hourly.next_run > timezone.now()
    assert fire_due().tasks == []


def test_disabling_stops_and_enabling_starts_from_now() -> None:
    hourly = entry()
    hourly.enabled = False
    hourly.save()
    assert hourly.next_run is None
    assert fire_due(NOON).next_due is None
    hourly.enabled = True
    hourly.save()
    assert hourly.next_run is not None
    assert hourly.next_run > timezone.now()


def test_the_second_of_two_edits_is_refused() -> None:
    first = entry()
    second = RepeatingTask.objects.get(pk=first.pk)
    first.args = []
    first.crontab = "1 * * * *"
    first.save()
    second.crontab = "2 * * * *"
    with pytest.raises(EditConflict, match="version 1 and is now at 2") as caught:
        second.save()
    assert caught.value.facts == {"name": second.name, "read_version": 1, "version": 2}
    second.refresh_from_db()
    assert second.crontab == "1 * * * *"


def test_a_stale_instance_cannot_undo_a_tick() -> None:
    stale = entry(func_name=echo.name)
    fire_due(NOON)
    stale.args = [1]
    stale.save()
    stale.refresh_from_db()
    assert stale.next_run == NOON + 60 * MINUTE
    assert stale.last_run == NOON


def test_saving_without_a_change_writes_nothing(
    django_assert_num_queries: Any,
) -> None:
    hourly = entry()
    with django_assert_num_queries(1 if connection.in_atomic_block else 3):
        hourly.save()
    assert hourly.version == 1


# --- schedule_task ------------------------------------------------------------------------------


def migrate(code: Callable[[type[models.Model]], None]) -> None:
    """Run code in a real data migration, with the model as migrations see it."""

    class Migration(migrations.Migration):
        operations: ClassVar[list[Any]] = [
            migrations.RunPython(lambda apps, editor: code(apps.get_model("cq", "RepeatingTask")))
        ]

    loader = MigrationExecutor(connection).loader
    state = loader.project_state(loader.graph.leaf_nodes("cq"))
    with connection.schema_editor(atomic=True) as editor:
        Migration("0099_schedule", "cq").apply(state, editor)


def test_schedule_task_in_a_data_migration_is_idempotent() -> None:
    def schedule(model: type[models.Model]) -> None:
        assert not hasattr(model, "schedule")
        schedule_task(model, "* * * * *", noop)

    migrate(schedule)
    migrate(schedule)
    [row] = RepeatingTask.objects.all()
    assert row.next_run is not None
    assert row.next_run > timezone.now()

    def schedule_others(model: type[models.Model]) -> None:
        schedule_task(model, "0 * * * *", noop)
        for _ in range(2):
            schedule_task(model, "* * * * *", echo, (1,), {"a": 2})
        schedule_task(model, "* * * * *", echo, (2,))

    migrate(schedule_others)
    assert RepeatingTask.objects.count() == 4


def test_schedule_task_updates_the_entry_of_a_given_name() -> None:
    made = schedule_task(RepeatingTask, "0 2 * * *", noop, name="nightly", timezone="UTC")
    made.enabled = False
    made.save()
    again = schedule_task(RepeatingTask, "0 3 * * *", noop, name="nightly", queue="slow")
    assert again.pk == made.pk
    assert (again.crontab, again.queue, again.enabled) == ("0 3 * * *", "slow", False)
    assert again.version == made.version + 1


def test_the_historic_spellings() -> None:
    made = RepeatingTask.schedule("* * * * *", noop)
    assert schedule_task(RepeatingTask, "* * * * *", noop.name).pk == made.pk


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (("* * * *", noop), InvalidCrontab, "5|five"),
        (("* * * * *", "os.system"), TaskNotRegistered, "os.system"),
        (("* * * * *", print), InvalidTask, "no task function"),
        (("* * * * *", add), InvalidArguments, "first"),
        (("* * * * *", echo, [object()]), InvalidArguments, "args"),
        (("* * * * *", echo, 1), InvalidArguments, "args is 1"),
        (("* * * * *", echo, [1], [2]), InvalidArguments, r"kwargs is \[2\]"),
        ((None, noop), InvalidCrontab, "None is no text"),
    ],
)
def test_schedule_task_refuses_what_could_not_fire(
    call: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        schedule_task(RepeatingTask, *call)
    assert not RepeatingTask.objects.exists()


@pytest.mark.parametrize("model", [Task, None, "cq.RepeatingTask"])
def test_schedule_task_wants_the_model_of_repeating_tasks(model: Any) -> None:
    with pytest.raises(InvalidOption, match=r"which is no RepeatingTask. Pass RepeatingTask, or"):
        schedule_task(model, "* * * * *", noop)


def test_schedule_task_names_an_unknown_option() -> None:
    with pytest.raises(InvalidOption, match="'que' is not an option"):
        schedule_task(RepeatingTask, "* * * * *", noop, que="x")


def test_long_arguments_still_give_distinct_names() -> None:
    for last in (1, 2):
        schedule_task(RepeatingTask, "* * * * *", echo, ["x" * 400, last])
    first, second = RepeatingTask.objects.all()
    assert first.name != second.name
    assert max(len(first.name), len(second.name)) <= 200

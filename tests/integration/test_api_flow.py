"""Trees and chains as people write them: call forms, results that are passed, errors that rise."""

from __future__ import annotations

from typing import Any

import pytest

from cq import task
from cq.definition.status import Status
from cq.errors import InvalidArguments
from cq.models import Task
from cq.testing import adrain, drain
from tests.sampleapp.models import Effect
from tests.sampleapp.tasks import (
    add,
    add_a_to_4,
    add_async,
    calc_a,
    echo,
    fail,
    fail_async,
    leave_effect,
    noop,
    write_effect,
)

pytestmark = pytest.mark.usefixtures("database")


@task(atomic=False)
def plan(cqt: Any, form: str) -> Any:
    """Children in every way in which a call may be written."""
    forms: dict[str, Any] = {
        "plain": lambda: cqt.subtask(echo, 1, x=2),
        "historic": lambda: cqt.subtask(echo, (1,), {"x": 2}),
        "historic, named": lambda: cqt.subtask(echo, args=(1,), kwargs={"x": 2}),
        "mixed": lambda: cqt.subtask(echo, (1,), kwargs={"x": 2}),
        "signature": lambda: cqt.subtask(echo.signature(1, x=2)),
        "using": lambda: cqt.subtask(echo.using(priority=5), 1, x=2),
        "name": lambda: cqt.subtask("tests.sampleapp.tasks.echo", 1, x=2),
    }
    return forms[form]()


@task(atomic=False)
def grow(cqt: Any, levels: int) -> Any:
    cqt.log(f"level {levels}")
    return cqt.subtask(grow, levels - 1) if levels > 1 else "leaf"


@task(atomic=False)
def trunk(cqt: Any, *names: str) -> None:
    for name in names:
        cqt.subtask(f"tests.sampleapp.tasks.{name}")


@task(atomic=False)
def chains_itself(cqt: Any) -> int:
    cqt.chain(add, 10)
    return 5


@task(atomic=False)
def chain_of_subtasks(cqt: Any, first: str = "add") -> Any:
    start = cqt.subtask(f"tests.sampleapp.tasks.{first}", *([1] if first == "add" else []))
    return start.chain(add, 2).chain(add_async, 3)


@task
def atomic_tree(cqt: Any, fails: bool) -> Any:
    leave_effect(cqt, "body")
    child = cqt.subtask(write_effect, "child")
    if fails:
        raise ValueError("after the plan")
    return child


@task
async def async_tree(cqt: Any) -> Any:
    cqt.subtask(noop)
    return cqt.subtask(add_async, 1, 2)


@task(atomic=False)
def read_previous(cqt: Any) -> Any:
    return [cqt.previous.result, cqt.previous.status, cqt.previous.func_name]


@task
async def read_previous_async(cqt: Any) -> Any:
    row = await cqt.aload("previous")
    return [cqt.previous.result, str(row.status)]


@task(atomic=False)
def read_relatives(cqt: Any) -> Any:
    return [cqt.task.func_name, cqt.parent.func_name, cqt.root.func_name, cqt.attempt]


@task(atomic=False)
def parent_of_reader(cqt: Any) -> Any:
    return cqt.subtask(read_relatives)


@task(atomic=False, store_result=False)
def secret(cqt: Any) -> str:
    return "secret"


def fresh(row: Task) -> Task:
    row.refresh_from_db()
    return row


# --- subtasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["plain", "historic", "historic, named", "mixed", "signature", "using", "name"]
)
def test_each_form_of_a_call_means_the_same(form: str) -> None:
    root = plan.delay(form)
    drain()
    assert fresh(root).result == {"args": [1], "kwargs": {"x": 2}}
    assert root.subtasks.get().priority == (5 if form == "using" else 0)


def test_the_nested_value_reaches_the_root() -> None:
    root = grow.delay(3)
    ran = drain()
    assert fresh(root).result == "leaf"
    assert (root.status, [one.depth for one in ran]) == (Status.SUCCESS, [0, 1, 2])
    assert {one.root_uuid for one in ran} == {root.id}
    assert root.format_logs() == "level 3\nlevel 2\nlevel 1"
    child = root.subtasks.get()
    assert child.parent == root
    assert child.format_logs() == "level 2"
    assert [line["origin"] for line in root.logs][1] == str(child.id)


def test_a_parent_waits_until_its_children_have_ended() -> None:
    root = trunk.delay("noop", "noop_sync", "noop_atomic")
    statuses: list[str] = []

    def look(**facts: Any) -> None:
        statuses.append(fresh(root).status)

    from cq.signals import task_finished

    task_finished.connect(look)
    try:
        drain()
    finally:
        task_finished.disconnect(look)
    assert set(statuses) <= {"W", "S"}
    assert fresh(root).status == Status.SUCCESS


def test_a_failed_child_marks_the_whole_path() -> None:
    root = trunk.delay("noop", "fail")
    drain()
    assert (fresh(root).status, root.error) == (Status.INCOMPLETE, "on purpose")
    assert {child.status for child in root.subtasks.all()} == {Status.SUCCESS, Status.FAILURE}


def test_children_of_a_failed_body_never_exist() -> None:
    root = atomic_tree.delay(True)
    drain()
    assert fresh(root).status == Status.FAILURE
    assert Task.objects.count() == 1
    assert not Effect.objects.exists()
    drain()
    other = atomic_tree.delay(False)
    drain()
    assert fresh(other).status == Status.SUCCESS
    assert sorted(Effect.objects.values_list("kind", flat=True)) == ["body", "child"]


def test_an_async_body_plans_as_well() -> None:
    root = async_tree.delay()
    drain()
    assert (fresh(root).result, root.subtasks.count()) == (3, 2)


def test_relatives_are_readable() -> None:
    root = parent_of_reader.delay()
    drain()
    names = [read_relatives.name, parent_of_reader.name, parent_of_reader.name, 1]
    assert fresh(root).result == names


def test_a_child_may_be_added_from_outside() -> None:
    root = noop.delay()
    child = root.subtask(add, 1, 2)
    drain()
    assert (fresh(root).status, fresh(child).parent_id, child.result) == ("S", root.id, 3)


# --- chains -------------------------------------------------------------------------------------


def test_the_result_comes_first_where_it_fits() -> None:
    first = add.delay(1)
    link = first.chain(add, 10).chain(add_async, 100)
    alone = first.chain(add, (5,), pass_result=False)
    drain()
    assert (fresh(link).result, fresh(alone).result) == (111, 5)
    assert link.previous.previous == first
    assert set(first.next.all()) == {link.previous, alone}
    assert {row.root_uuid for row in Task.objects.all()} == {first.id}


def test_what_has_no_room_for_the_result_reads_it() -> None:
    link = add.delay(1, 2).chain(read_previous)
    other = add.delay(1, 2).chain(read_previous_async)
    drain()
    assert fresh(link).result == [3, "S", add.name]
    assert fresh(other).result == [3, "S"]


def test_the_result_is_passed_even_if_it_is_not_stored() -> None:
    first = secret.delay()
    link = first.chain(echo)
    drain()
    assert (fresh(first).result, fresh(link).result["args"]) == (None, ["secret"])


def test_a_chain_stops_at_an_error() -> None:
    first = fail.delay("no")
    second = first.chain(echo)
    third = second.chain(echo)
    forced = first.chain(echo, force_chain=True)
    drain()
    assert (fresh(second).status, fresh(third).status) == (Status.REVOKED, Status.REVOKED)
    assert second.error == "The predecessor failed."
    assert (fresh(forced).status, forced.result["args"]) == (Status.SUCCESS, [None])


def test_a_revoked_predecessor_takes_forced_links_along() -> None:
    first = add.delay(1)
    forced = first.chain(echo, force_chain=True)
    first.revoke()
    assert drain() == []
    assert (fresh(first).status, fresh(forced).status) == (Status.REVOKED, Status.REVOKED)


def test_a_link_onto_an_ended_task_starts_at_once() -> None:
    first, failed = add.delay(1), fail.delay()
    drain()
    link, refused = first.chain(add, 1), failed.chain(echo)
    forced = failed.chain(echo, force_chain=True)
    assert (link.status, refused.status, forced.status) == ("Q", "E", "Q")
    drain()
    assert (fresh(link).result, fresh(forced).result["args"]) == (2, [None])


def test_a_task_may_chain_behind_itself() -> None:
    first = chains_itself.delay()
    drain()
    assert (fresh(first).status, first.result) == (Status.SUCCESS, 5)
    assert first.next.get().result == 15


def test_a_chain_of_subtasks() -> None:
    root = chain_of_subtasks.delay()
    failed = chain_of_subtasks.delay("fail")
    drain()
    assert (fresh(root).result, root.subtasks.count()) == (6, 3)
    assert (fresh(failed).status, failed.error) == (Status.INCOMPLETE, "on purpose")


def test_a_link_that_cannot_be_called_is_an_error_at_once() -> None:
    first = add.delay(1)
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        first.chain(calc_a, 1, 2)
    with pytest.raises(InvalidArguments, match="too many"):
        first.chain(calc_a, (4,), pass_result=True)
    assert Task.objects.count() == 1


def test_the_historic_example() -> None:
    link = calc_a.delay(3).chain(add_a_to_4, (4,))
    drain()
    assert fresh(link).result == 2 + 4 + 4


@task(atomic=False)
def only_a(cqt: Any, a: int) -> int:
    return 4 + a


def test_the_historic_function_with_one_parameter_gets_what_it_was_given() -> None:
    link = calc_a.delay(3).chain(only_a, (4,))
    drain()
    assert fresh(link).result == 8


@task(atomic=False)
def odd_names(cqt: Any, task: Any = 0, fn: Any = 0, self: Any = 0) -> Any:
    return [task, fn, self]


@task(atomic=False)
def plan_odd_names(cqt: Any) -> Any:
    cqt.chain(odd_names, task=1, fn=2, self=3, pass_result=False)
    start = cqt.subtask(odd_names, task=1, fn=2, self=3)
    return start.chain(odd_names, task=4, fn=5, self=6, pass_result=False)


async def test_parameters_may_have_any_name() -> None:
    names = {"task": 1, "fn": 2, "self": 3}
    assert odd_names(**names) == [1, 2, 3]
    row = await odd_names.adelay(**names)
    links = [await row.achain(odd_names, **names), await row.asubtask(odd_names, **names)]
    root = await plan_odd_names.adelay()
    await adrain()
    for one in (row, *links, root):
        await one.arefresh_from_db()
    assert [one.result for one in (row, *links, root)] == [[1, 2, 3]] * 3 + [[4, 5, 6]]


# --- returning what was delayed -----------------------------------------------------------------


@task(atomic=False)
def adopt_tree(cqt: Any, levels: int) -> Any:
    cqt.log("adopter")
    return grow.delay(levels)


@task
def adopt_atomically(cqt: Any) -> Any:
    return add.delay(1, 2)


@task
async def adopt_async(cqt: Any) -> Any:
    return await add.adelay(1, 2)


@task(atomic=False)
def adopt_failure(cqt: Any) -> Any:
    return fail_async.delay("below")


@task(atomic=False)
def adopt_foreign(cqt: Any, id: str) -> Any:
    return Task.objects.get(id=id)


@pytest.mark.parametrize("body", [adopt_atomically, adopt_async])
def test_a_returned_delay_is_adopted(body: Any) -> None:
    root = body.delay()
    drain()
    child = Task.objects.get(func_name=add.name)
    assert (fresh(root).result, root.status) == (3, Status.SUCCESS)
    assert (child.parent_id, child.root_id, child.depth) == (root.id, root.id, 1)


def test_an_adopted_tree_logs_at_its_new_root() -> None:
    root = adopt_tree.delay(2)
    drain()
    assert fresh(root).result == "leaf"
    assert root.format_logs() == "adopter\nlevel 2\nlevel 1"


def test_an_adopted_failure_rises() -> None:
    root = adopt_failure.delay()
    drain()
    assert (fresh(root).status, root.error) == (Status.INCOMPLETE, "below")


def test_a_child_of_another_is_not_adopted() -> None:
    other = grow.delay(2)
    drain()
    root = adopt_foreign.delay(str(other.subtasks.get().id))
    drain()
    assert fresh(root).status == Status.FAILURE
    assert "another parent" in root.error


@task(atomic=False)
def return_own_link(cqt: Any) -> Any:
    return cqt.chain(noop)


def test_a_link_behind_itself_cannot_be_its_result() -> None:
    root = return_own_link.delay()
    drain()
    assert fresh(root).status == Status.FAILURE
    assert "runs after it has ended" in root.error
    assert Task.objects.count() == 1

"""`cqt` without a database: lines, progress, plans, and what it refuses in a body."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import override_settings

from cq.definition.payload import check_json
from cq.definition.status import Status
from cq.errors import (
    InvalidArguments,
    InvalidOption,
    InvalidTask,
    RunningLoop,
    UnfitResult,
    WaitInsideTask,
)
from cq.execution.context import Commit, Context
from cq.execution.invocation import arguments, succeeded
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer


def child(cqt: Any, number: int = 0) -> None: ...


def told(task: Any, error: Any, *args: Any, **kwargs: Any) -> None: ...


def make_context(committer: Commit | None = None, **changes: Any) -> Context:
    id = uuid4()
    claimed = Claimed(
        **{
            "id": id,
            "token": uuid4(),
            "func_name": "shop.send",
            "args": [],
            "kwargs": {},
            "root": id,
            "parent": None,
            "previous": None,
            "previous_result": None,
            "pass_result": False,
            "depth": 0,
            "attempt": 2,
            "retries": 1,
            "crashes": 0,
            "releases": 0,
            "max_retries": None,
            "timeout": None,
            "queue": "default",
            "is_root": True,
            **changes,
        }
    )
    return Context(claimed, AttemptBuffer(1000), committer)


def lines(context: Context, *, everything: bool = True) -> list[str]:
    return [line.message for line in context.buffer.take(everything=everything)]


# --- what it says -------------------------------------------------------------------------------


def test_a_line_goes_to_logging_and_to_the_record(caplog: pytest.LogCaptureFixture) -> None:
    context = make_context()
    with caplog.at_level("DEBUG", "cq.task"):
        context.log("50 % of {x}", level="warning")
    (line,) = context.buffer.take()
    assert (line.message, line.level, line.attempt) == ("50 % of {x}", logging.WARNING, 2)
    assert (line.task, line.root, line.func_name) == (context.id, context.id, "shop.send")
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("50 % of {x}", "WARNING")
    assert record.cq_task_id == str(context.id)  # type: ignore[attr-defined]


def test_unpublished_lines_wait_for_a_published_one() -> None:
    context = make_context()
    context.log("one", publish=False)
    assert lines(context, everything=False) == []
    context.log("two")
    assert lines(context, everything=False) == ["one", "two"]
    context.log("three", publish=False)
    assert lines(context) == ["three"]


def test_limit_keeps_the_newest_unrecorded_lines() -> None:
    context = make_context()
    for number in range(100):
        context.log(number, publish=False)
    context.log("done", limit=10)
    assert lines(context) == [*map(str, range(91, 100)), "done"]


@pytest.mark.parametrize("limit", [0, -3, "a", 2.5, True])
def test_a_limit_is_a_number_of_lines(limit: Any) -> None:
    context = make_context()
    with pytest.raises(InvalidOption, match="which is not a whole number above 0"):
        context.log("x", limit=limit)
    assert lines(context) == []


@pytest.mark.parametrize("level", ["LOUD", -1, 40_000, None, 2.5])
def test_a_level_is_one_of_logging(level: Any) -> None:
    with pytest.raises(InvalidOption, match="which is no logging level"):
        make_context().log("x", level=level)


def test_what_no_database_stores_is_replaced_and_cut() -> None:
    context = make_context()
    with override_settings(CQ={"MAX_LINE_BYTES": 100}):
        context.log("nul \0 and \ud800")
        context.log("x" * 1000)
    first, second = lines(context)
    assert first == "nul \ufffd and \ufffd"
    assert len(second.encode()) <= 100


def test_progress_keeps_the_latest() -> None:
    context = make_context()
    context.progress(1, 3, "one")
    context.progress(2, 3, "two")
    value = context.buffer.take_progress()
    assert value is not None
    assert (value.done, value.total, value.message) == (2.0, 3.0, "two")
    assert context.buffer.take_progress() is None


@pytest.mark.parametrize(
    ("done", "total"), [(float("nan"), 1), (1, float("inf")), ("x", 1), (None, 1), (1, [])]
)
def test_progress_is_a_finite_number(done: Any, total: Any) -> None:
    with pytest.raises(InvalidOption, match=r"cqt\.progress\(\) got"):
        make_context().progress(done, total)


def test_track_passes_items_through_and_counts_them() -> None:
    context = make_context()
    seen = []
    for item in context.track(["a", "b", "c"], "letters"):
        value = context.buffer.progress
        assert value is not None
        seen.append((item, value.done, value.total))
    assert seen == [("a", 0, 3), ("b", 1, 3), ("c", 2, 3)]
    value = context.buffer.take_progress()
    assert value is not None
    assert (value.done, value.message) == (3, "letters")
    assert list(context.track(iter("ab"))) == ["a", "b"]
    assert context.buffer.progress is not None
    assert context.buffer.progress.total is None


# --- what it plans ------------------------------------------------------------------------------


def test_a_subtask_is_a_plan(make_task: Callable[..., Any]) -> None:
    context = make_context(depth=3)
    draft = context.subtask(make_task(child), 5)
    (plan,) = context.drafts
    assert (plan.id, plan.parent, plan.status) == (draft.id, context.id, Status.QUEUED)
    assert isinstance(draft.id, UUID)
    assert draft.func_name in repr(draft)


def test_a_plan_among_other_values_is_refused_with_the_way_out(
    make_task: Callable[..., Any],
) -> None:
    draft = make_context().subtask(make_task(child), 5)
    with pytest.raises(InvalidArguments, match=r"result\[1\]: Draft; return it alone to pass its"):
        check_json([1, draft], "result")


def test_a_link_behind_a_subtask_shares_its_parent(make_task: Callable[..., Any]) -> None:
    context = make_context()
    function = make_task(child)
    first = context.subtask(function)
    second = first.chain(function).errorback(told)
    third = second.chain(function)
    plans = context.drafts
    assert [plan.previous for plan in plans] == [None, first.id, second.id]
    assert {plan.parent for plan in plans} == {context.id}
    assert plans[2].id == third.id
    assert plans[1].errorbacks == [{"path": f"{__name__}.told", "args": [], "kwargs": {}}]


def test_a_link_behind_the_task_itself_is_a_sibling(make_task: Callable[..., Any]) -> None:
    parent = uuid4()
    context = make_context(parent=parent)
    context.chain(make_task(child))
    (plan,) = context.drafts
    assert (plan.previous, plan.parent) == (context.id, parent)


def test_a_subtask_is_not_waited_for(make_task: Callable[..., Any]) -> None:
    draft = make_context().subtask(make_task(child))
    with pytest.raises(WaitInsideTask, match="Return it, or chain"):
        draft.wait()


async def test_a_subtask_is_not_awaited_either(make_task: Callable[..., Any]) -> None:
    draft = make_context().subtask(make_task(child))
    with pytest.raises(WaitInsideTask, match="Return it, or chain"):
        await draft


def test_too_many_children(make_task: Callable[..., Any]) -> None:
    context, function = make_context(), make_task(child)
    with override_settings(CQ={"MAX_CHILDREN": 3}):
        for _ in range(2):
            context.subtask(function)
        context.chain(function)
        for plan in (context.subtask, context.chain):
            with pytest.raises(InvalidOption, match=r"more than 3 .* Give each subtask a chunk"):
                plan(function)
    assert len(context.drafts) == 3


def test_too_deep(make_task: Callable[..., Any]) -> None:
    with pytest.raises(InvalidOption, match=r"32 levels below its root.*MAX_DEPTH"):
        make_context(depth=31).subtask(make_task(child))


def test_a_call_that_does_not_fit_plans_nothing(make_task: Callable[..., Any]) -> None:
    context = make_context()
    with pytest.raises(InvalidArguments):
        context.subtask(make_task(child), 1, 2)
    assert context.drafts == []


def test_an_errorback_of_the_running_task_goes_with_its_outcome() -> None:
    context = make_context()
    context.errorback(told, 1, x=2)
    entry = {"path": f"{__name__}.told", "args": [1], "kwargs": {"x": 2}}
    assert succeeded(context, None).errorbacks == [entry]
    with pytest.raises(InvalidTask):
        context.errorback(lambda task, error: None)
    context.has_committed = True
    with pytest.raises(InvalidOption, match="planned after"):
        context.errorback(told)


# --- what it is handed --------------------------------------------------------------------------


def test_the_result_of_the_predecessor_comes_first() -> None:
    context = make_context(previous=uuid4(), previous_result=[1], pass_result=True, args=[2])
    assert arguments(context.claimed) == [[1], 2]
    assert context.previous is not None
    assert context.previous.result == [1]


def test_there_is_no_predecessor() -> None:
    assert make_context().previous is None
    assert arguments(make_context(args=[2]).claimed) == [2]


@pytest.mark.parametrize("which", ["task", "root", "parent", "previous"])
async def test_rows_are_not_read_on_a_loop(which: str) -> None:
    context = make_context(parent=uuid4(), previous=uuid4())
    with pytest.raises(RunningLoop, match=rf"await cqt\.aload\('{which}'\)"):
        _ = context.previous.status if which == "previous" else getattr(context, which)  # type: ignore[union-attr]


async def test_aload_loads_rows_only() -> None:
    with pytest.raises(InvalidOption, match="names no row"):
        await make_context().aload("drafts")


# --- what it returns ----------------------------------------------------------------------------


def test_a_returned_subtask_is_adopted(make_task: Callable[..., Any]) -> None:
    context, function = make_context(), make_task(child)
    draft = context.subtask(function).chain(function)
    outcome = succeeded(context, draft)
    assert (outcome.adopts, outcome.result, len(outcome.children)) == (draft.id, None, 2)


def test_a_link_behind_the_task_itself_cannot_be_its_result(make_task: Callable[..., Any]) -> None:
    context = make_context()
    with pytest.raises(UnfitResult, match="runs after it has ended"):
        succeeded(context, context.chain(make_task(child)))


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), b"x", {"a": {1}}])
def test_a_result_that_json_cannot_carry(value: Any) -> None:
    with pytest.raises(UnfitResult, match=r"shop\.send returned what cannot be stored: result"):
        succeeded(make_context(), value)


# --- commit -------------------------------------------------------------------------------------


def committing() -> Commit:
    async def run(context: Context, fn: Callable[[], Any]) -> Any:
        value = fn()
        context.has_committed = True
        return value

    return Commit(run)


async def test_commit_returns_the_value_of_the_function() -> None:
    context = make_context(committing())
    assert await context.commit(lambda a, b: a + b, 1, b=2) == 3
    assert context.has_committed


async def test_commit_is_the_last_act(make_task: Callable[..., Any]) -> None:
    context = make_context(committing())
    await context.commit(lambda: None)
    with pytest.raises(InvalidOption, match="a second time"):
        context.commit(lambda: None)
    with pytest.raises(InvalidOption, match=r"planned after cqt\.commit"):
        context.subtask(make_task(child))


async def test_what_a_failed_commit_planned_is_forgotten(make_task: Callable[..., Any]) -> None:
    context, function = make_context(committing()), make_task(child)
    context.subtask(function)

    def write() -> None:
        context.subtask(function)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await context.commit(write)
    assert len(context.drafts) == 1


def test_commit_is_for_async_bodies() -> None:
    with pytest.raises(InvalidOption, match=r"which is a def. Leave it out"):
        make_context().commit(lambda: None)


def test_commit_wants_a_plain_function() -> None:
    async def write() -> None: ...

    with pytest.raises(InvalidOption, match="an async def"):
        make_context(committing()).commit(write)

"""Tasks that run in place: a plain call, and `delay()` under CQ_SERIAL; no database at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import uuid4

import pytest

from cq.definition.status import Status
from cq.errors import (
    DuplicateSubmit,
    IllegalTransition,
    InvalidArguments,
    InvalidOption,
    RunningLoop,
    UnfitResult,
    WaitInsideTask,
)
from cq.execution.inline_task import InlineTask
from cq.testing import inline

Make = Callable[..., Any]

told: list[tuple[Any, ...]] = []
ran: list[Any] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    told.clear()
    ran.clear()


class Tasks:
    """The task functions of this module, made anew for each test."""

    def __init__(self, make: Make) -> None:
        for body in (add, double, fail, flaky, note, grow, trunk, pair):
            setattr(self, body.__name__, make(body, atomic=False))
        self.flaky = make(flaky, atomic=False, retries=3, backoff=60)
        for body in (fetch, fetch_tree):
            setattr(self, body.__name__, make(body))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


tasks = cast(Any, None)


@pytest.fixture(autouse=True)
def made(make_task: Make) -> Iterator[None]:
    global tasks
    tasks = Tasks(make_task)
    yield
    tasks = None


def add(cqt: Any, first: int, second: int = 0) -> int:
    ran.append(("add", first, second))
    return first + second


def double(cqt: Any, number: int) -> int:
    return 2 * number


def fail(cqt: Any, message: str = "on purpose") -> None:
    cqt.log("about to fail")
    raise ValueError(message)


def flaky(cqt: Any, good_attempt: int) -> int:
    cqt.log(f"attempt {cqt.attempt}")
    if cqt.attempt < good_attempt:
        raise ConnectionError(f"attempt {cqt.attempt}")
    return cast(int, cqt.attempt)


def note(cqt: Any, task: Any, error: Any, *args: Any) -> None:
    cqt.log("told")
    told.append((task.func_name, error, *args))


def plain_note(task: Any, error: Any, *args: Any) -> None:
    told.append(("plain", error, *args))


async def async_note(task: Any, error: Any) -> None:
    told.append(("async", error))


def broken_note(task: Any, error: Any) -> None:
    raise RuntimeError("the errorback is broken")


def grow(cqt: Any, levels: int) -> int:
    cqt.log(f"level {levels}")
    if levels > 1:
        return cast(int, cqt.subtask(tasks.grow, levels - 1))
    return 42


def trunk(cqt: Any, *plans: Any) -> Any:
    value = None
    for name, *args in plans:
        value = cqt.subtask(getattr(tasks, name), *args)
    return value


UNFIT = object()


def pair(cqt: Any) -> tuple[int, object]:
    return 1, UNFIT


async def fetch(cqt: Any, url: str) -> str:
    ran.append(threading.current_thread())
    return url.upper()


async def fetch_tree(cqt: Any, url: str) -> Any:
    cqt.subtask(tasks.add, 1, 2)
    return cqt.subtask(tasks.fetch, url)


# --- a plain call -------------------------------------------------------------------------------


def test_a_call_returns_the_value_as_it_is() -> None:
    assert tasks.add(1, second=2) == 3
    assert tasks.pair() == (1, UNFIT)


def test_a_call_takes_whatever_a_call_takes() -> None:
    thing = object()
    with pytest.raises(TypeError, match="unsupported operand"):
        tasks.add(thing)
    assert ran == [("add", thing, 0)]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        tasks.add()


def test_a_call_raises_what_the_body_raises_at_once() -> None:
    with pytest.raises(ConnectionError, match="attempt 1"):
        tasks.flaky(3)


def test_a_call_runs_its_tree_and_takes_over_the_result() -> None:
    assert tasks.grow(3) == 42
    assert tasks.trunk(["add", 1, 2], ["add", 3, 4]) == 7
    assert ran == [("add", 1, 2), ("add", 3, 4)]


def test_a_subtask_that_fails_makes_the_call_raise() -> None:
    with pytest.raises(ValueError, match="on purpose"):
        tasks.trunk(["add", 1], ["fail"], ["add", 2])
    assert ran == [("add", 1, 0), ("add", 2, 0)]


def test_subtasks_of_a_call_are_retried() -> None:
    assert tasks.trunk(["flaky", 3]) == 3


async def test_an_async_call_is_awaited() -> None:
    assert await tasks.fetch("x") == "X"
    assert ran == [threading.current_thread()]


async def test_an_async_call_with_subtasks() -> None:
    assert await tasks.fetch_tree("x") == "X"
    # The sync child ran on another thread, the async one on the caller's loop.
    assert ran == [("add", 1, 2), threading.current_thread()]


async def test_an_async_call_raises() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await tasks.fetch()


# --- delay() in place ---------------------------------------------------------------------------


def test_delay_returns_an_ended_task() -> None:
    with inline():
        task = tasks.add.delay(1, second=2)
    assert isinstance(task, InlineTask)
    assert (task.status, task.result, task.error, task.errors) == (Status.SUCCESS, 3, None, [])
    assert (task.args, task.kwargs, task.func_name) == ([1], {"second": 2}, tasks.add.name)
    assert task.submitted <= task.started <= task.finished
    assert (task.attempts, task.retries, task.is_terminal, task.root_uuid) == (1, 0, True, task.id)
    assert task.STATUS_SUCCESS == task.STATUS_COMPLETE == task.status
    assert task.status in task.STATUS_DONE
    assert task.wait(timeout=5) == 3
    task.refresh_from_db()
    assert str(task) == f"{tasks.add.name} {task.id} (Success, in place)"
    with pytest.raises(AttributeError, match="ran in place"):
        task.claim_token  # noqa: B018


def test_the_other_doors_run_in_place_too() -> None:
    from cq.models import delay

    with inline():
        assert tasks.add.delay_args((1,), {"second": 1}).result == 2
        assert delay(tasks.add, (1, 2)).result == 3
        assert delay(tasks.add.name, (1,)).result == 1
        assert tasks.add.using(queue="x", run_after=60).delay(5).result == 5
        many = tasks.add.delay_many([((1,), {}), tasks.double.signature(4)])
        assert [task.result for task in many] == [1, 8]


def test_arguments_and_results_are_json() -> None:
    with inline():
        with pytest.raises(InvalidArguments, match=r"args\[0\]: object"):
            tasks.add.delay(object())
        with pytest.raises(InvalidArguments, match="missing a required argument"):
            tasks.add.delay()
        task = tasks.pair.delay()
    assert task.status == Status.FAILURE
    assert isinstance(task.exception, UnfitResult)


def test_a_failure_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with inline():
        task = tasks.fail.delay("no luck")
    assert (task.status, task.result, task.error) == (Status.FAILURE, None, "no luck")
    (error,) = task.errors
    assert (error["type"], error["message"], error["attempt"]) == ("ValueError", "no luck", 1)
    assert "at" in error
    assert task.wait() is None
    assert [r.exc_info is not None for r in caplog.records if r.levelname == "ERROR"] == [True]


def test_retries_without_their_pauses() -> None:
    with inline():
        task = tasks.flaky.delay(3)
        spent = tasks.flaky.using(retries=1).delay(3)
    assert (task.status, task.result, task.attempts, task.retries) == (Status.SUCCESS, 3, 3, 2)
    assert [error["attempt"] for error in task.errors] == [1, 2]
    assert task.format_logs() == "attempt 1\nattempt 2\nattempt 3"
    assert (spent.status, spent.attempts, spent.retries) == (Status.FAILURE, 2, 1)


def test_a_tree_logs_at_its_root() -> None:
    with inline():
        root = tasks.grow.delay(3)
    assert root.result == 42
    assert root.format_logs() == "level 3\nlevel 2\nlevel 1"
    (child,) = root.subtasks.all()
    assert child.format_logs() == "level 2"
    assert (child.parent, child.root) == (root, root)
    assert [line["origin"] for line in root.logs][1] == str(child.id)
    assert set(root.logs[0]) == {"message", "timestamp", "level", "origin"}


def test_a_failed_child_makes_the_path_incomplete() -> None:
    with inline():
        root = tasks.trunk.delay(["trunk", ["fail", "deep"]])
    (child,) = root.subtasks
    assert (root.status, child.status) == (Status.INCOMPLETE, Status.INCOMPLETE)
    assert (root.error, child.error) == ("deep", "deep")


def test_errorbacks_hear_of_a_failure_once(caplog: pytest.LogCaptureFixture) -> None:
    with inline():
        root = tasks.trunk.delay(["fail"])
        assert root.errorback(tasks.note, 1) is root
        root.errorback(plain_note, "x")
        root.errorback(async_note)
        root.errorback(broken_note)
        tasks.add.delay(1).errorback(plain_note)
    assert told == [
        (tasks.trunk.name, "on purpose", 1),
        ("plain", "on purpose", "x"),
        ("async", "on purpose"),
    ]
    assert "the errorback is broken" in caplog.text
    assert "told" in root.format_logs()


def test_a_link_gets_the_result_if_it_takes_one() -> None:
    with inline():
        first = tasks.add.delay(1, 2)
        assert first.chain(tasks.double).result == 6
        assert first.chain(tasks.add, (4,)).result == 7
        assert first.chain(tasks.add, (4,), pass_result=False).result == 4
        link = first.chain(tasks.add, 1, 1)
    assert (link.result, link.previous, link.root) == (2, first, first)
    assert [task.result for task in first.next] == [6, 7, 4, 2]


def test_a_link_behind_a_failure() -> None:
    with inline():
        failed = tasks.fail.delay()
        link = failed.chain(tasks.double)
        behind = link.chain(tasks.double)
        forced = failed.chain(tasks.add, 1, force_chain=True, pass_result=False)
    assert (link.status, link.error) == (Status.REVOKED, "The predecessor failed.")
    assert behind.status == Status.REVOKED
    assert forced.result == 1


def chains_itself(cqt: Any) -> int:
    cqt.chain(tasks.double)
    cqt.subtask(tasks.add, 1).chain(tasks.double)
    return 5


def reads_previous(cqt: Any) -> Any:
    previous = cqt.previous
    return [previous.result, previous.func_name, str(previous.id)]


def test_links_behind_the_running_task(make_task: Make) -> None:
    with inline():
        task = make_task(chains_itself, atomic=False).delay()
    assert (task.status, task.result) == (Status.SUCCESS, 5)
    assert [child.result for child in task.subtasks] == [1, 2]
    assert [link.result for link in task.next] == [10]


def test_the_predecessor_is_readable(make_task: Make) -> None:
    reader = make_task(reads_previous, atomic=False)
    with inline():
        first = make_task(chains_itself, "quiet", atomic=False, store_result=False).delay()
        assert first.result is None
        assert first.chain(reader).result == [5, "quiet", str(first.id)]


def returns_delayed(cqt: Any, name: str, *args: Any) -> Any:
    return getattr(tasks, name).delay(*args)


def returns_chain(cqt: Any) -> Any:
    return tasks.add.delay(3).chain(tasks.add, (4,))


def test_a_returned_delay_is_adopted(make_task: Make) -> None:
    adopting = make_task(returns_delayed, atomic=False)
    with inline():
        task = adopting.delay("grow", 2)
        failed = adopting.delay("fail")
        chained = make_task(returns_chain, atomic=False).delay()
    assert (task.status, task.result) == (Status.SUCCESS, 42)
    assert task.format_logs() == "level 2\nlevel 1"
    assert [child.root for child in task.subtasks] == [task]
    assert (failed.status, failed.error) == (Status.INCOMPLETE, "on purpose")
    assert (chained.result, len(chained.subtasks)) == (7, 2)


def waits(cqt: Any) -> Any:
    return tasks.add.delay(1).wait()


def test_waiting_in_a_body_is_refused_as_a_worker_would(make_task: Make) -> None:
    with inline():
        task = make_task(waits, atomic=False).delay()
    assert isinstance(task.exception, WaitInsideTask)
    # The mark has gone with the body.
    with inline():
        assert tasks.add.delay(1).wait() == 1


def test_held_tasks_run_when_they_are_submitted() -> None:
    with inline():
        task = tasks.add.delay_args((1,), submit=False)
        link = task.chain(tasks.double)
        assert (task.status, link.status, ran) == (Status.PENDING, Status.PENDING, [])
        task.submit(9)
        assert (task.result, task.args, link.result) == (10, [9, 1], 20)
        with pytest.raises(DuplicateSubmit, match="it is Success"):
            task.submit()
        with pytest.raises(InvalidArguments):
            tasks.add.delay_args((1, 2), submit=False).submit(3)


def test_revoke_and_retry() -> None:
    with inline():
        held = tasks.add.delay_args((1,), submit=False)
        link = held.chain(tasks.double)
        held.revoke()
        held.submit()
        assert (held.status, link.status, ran) == (Status.REVOKED, Status.REVOKED, [])
        held.retry()
        assert held.result == 1
        held.revoke()
        assert held.status == Status.SUCCESS
        with pytest.raises(IllegalTransition, match="is Success and cannot be retried"):
            held.retry()
        failed = tasks.flaky.using(retries=0).delay(2)
        failed.retry()
    assert (failed.status, failed.attempts, len(failed.errors)) == (Status.FAILURE, 1, 2)


def test_parent_and_previous_must_have_run_in_place_too() -> None:
    with inline():
        root = tasks.add.delay(1)
        child = tasks.add.delay_args((2,), parent=root)
        link = tasks.add.delay_args((2,), previous=root)
        with pytest.raises(InvalidOption, match="did not run in place"):
            tasks.add.delay_args((2,), parent=uuid4())
    assert (child.parent, link.previous, list(root.subtasks)) == (root, root, [child])
    with inline():
        assert root.subtask(tasks.add, 5).parent is root


async def test_the_verbs_have_twins() -> None:
    with inline():
        task = await tasks.add.adelay(1)
        assert isinstance(task, InlineTask)
        assert await task == 1
        assert (await task.achain(tasks.double)).result == 2
        assert (await task.asubtask(tasks.add, 3)).result == 3
        assert await task.aerrorback(plain_note) is task
        assert await task.aformat_logs() == ""
        assert await task.alogs() == []
        await task.arevoke()
        await task.arefresh_from_db()
        held = await tasks.add.adelay_args((1,), submit=False)
        await held.asubmit(1)
        assert held.result == 2
        assert (await tasks.fetch.adelay("x")).result == "X"
        many = await tasks.add.adelay_many([((1,), {})])
        assert [task.result for task in many] == [1]
        failed = await tasks.fail.adelay()
        await failed.aretry()
        for verb in ("chain", "subtask", "errorback", "submit", "revoke", "retry", "wait"):
            with pytest.raises(RunningLoop):
                getattr(task, verb)()


def too_deep(cqt: Any) -> Any:
    return cqt.subtask("deep")


def test_depth_is_bounded(make_task: Make) -> None:
    make_task(too_deep, "deep", atomic=False)
    with inline():
        task = make_task(too_deep, "deeper", atomic=False).delay()
    assert (task.status, "MAX_DEPTH" in task.error) == (Status.INCOMPLETE, True)

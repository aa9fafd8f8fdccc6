"""CQ_SERIAL on a database: no row of cq, and the writes of a body as a worker would leave them."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from cq import task
from cq.definition.status import Status
from cq.execution.inline_task import InlineTask
from cq.models import LogLine, Stream, Task
from cq.testing import drain, inline
from tests.sampleapp.models import Effect, Note
from tests.sampleapp.tasks import (
    adopt,
    commit_effect,
    fan_out_effects,
    flaky,
    grow,
    leave_effect,
    return_chain,
    return_the_unwritable,
    take_note,
    write_and_fail,
    write_effect,
    write_effect_async,
)

pytestmark = pytest.mark.usefixtures("database")


@task
async def commit_and_fail(cqt: Any) -> None:
    def write() -> None:
        leave_effect(cqt, "lost")
        raise ValueError("after the write")

    await cqt.commit(write)


@task(atomic=False, retries=2, backoff=0)
def log_and_fail(cqt: Any, good_attempt: int) -> int:
    cqt.log(f"attempt {cqt.attempt}")
    if cqt.attempt < good_attempt:
        raise ValueError(f"attempt {cqt.attempt}")
    return int(cqt.attempt)


def no_rows() -> bool:
    return not (Task.objects.exists() or LogLine.objects.exists() or Stream.objects.exists())


def effects() -> list[str]:
    return sorted(Effect.objects.values_list("kind", flat=True))


def test_no_row_of_cq_is_written() -> None:
    with inline():
        root = grow.delay(3, 2)
        fan_out_effects.delay(2)
    assert no_rows()
    assert (root.status, len(root.logs)) == (Status.SUCCESS, 7)
    assert effects() == ["child", "child", "parent"]


@pytest.mark.parametrize("how", [{"CQ": {"SERIAL": True}}, {"CQ": {}, "CQ_SERIAL": True}])
def test_both_spellings_of_the_setting(how: dict[str, Any]) -> None:
    with override_settings(**how):
        assert isinstance(write_effect.delay(), InlineTask)
    assert no_rows()


def test_an_atomic_body_that_fails_leaves_nothing() -> None:
    with inline():
        row = write_and_fail.delay()
        other = commit_and_fail.delay()
    assert (row.status, other.status) == (Status.FAILURE, Status.FAILURE)
    assert effects() == []


def test_an_atomic_body_whose_result_is_unfit_leaves_nothing() -> None:
    with inline():
        take_note.delay("first", "u")
        row = take_note.delay("second", "u")
    assert (row.status, Note.objects.count()) == (Status.FAILURE, 1)


def test_async_bodies_write_too() -> None:
    with inline():
        assert write_effect_async.delay("a").status == Status.SUCCESS
        assert commit_effect.delay("b").result == "b"
    assert effects() == ["a", "b"]


def test_a_plain_call_writes_in_the_transaction_of_the_caller() -> None:
    with pytest.raises(ValueError, match="after the write"):
        write_and_fail()
    # Nobody opened a transaction, so nobody rolled one back: a call is a call.
    assert effects() == ["rolled back"]
    assert no_rows()


@pytest.mark.parametrize(
    ("body", "args"),
    [
        (grow, (3, 2)),
        (flaky, (3,)),
        (return_chain, (3,)),
        (adopt, (3,)),
        (log_and_fail, (2,)),
        (log_and_fail, (9,)),
        (return_the_unwritable, ()),
        (write_and_fail, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_same_comes_of_it_as_in_a_worker(body: Any, args: Any) -> None:
    with inline():
        in_place = body.delay(*args)
    row = body.delay(*args)
    drain()
    row.refresh_from_db()
    for name in ("status", "result", "error", "attempts", "retries", "func_name", "args"):
        assert getattr(in_place, name) == getattr(row, name), name
    assert len(in_place.subtasks.all()) == row.subtasks.count()
    assert sorted(in_place.format_logs().split()) == sorted(row.format_logs().split())
    assert [error["message"] for error in in_place.errors] == [e["message"] for e in row.errors]
    for mine, stored in zip(in_place.errors, row.errors, strict=True):
        assert set(mine) == set(stored)

"""
Chaining onto, or returning, a task that ends in the meantime: the race, forced.

`return calc_a.delay(3).chain(add_a_to_4, (4,))` is the historic example. Between `delay()` and
`chain()` a second drain, in a thread of its own, runs what is due: the task has ended before the
link exists. In an atomic body nobody can run what its own transaction has delayed, so there the
task comes from outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from cq import task
from cq.aio import in_db
from cq.definition.status import Status
from cq.models import Stream, Task
from cq.testing import drain
from tests.sampleapp.tasks import add_a_to_4, calc_a, fail

pytestmark = pytest.mark.usefixtures("database")

between: list[Callable[[], Any]] = []
"""What happens between delay() and chain() in the bodies below."""


@pytest.fixture(autouse=True)
def nothing_between() -> None:
    between.clear()


def elsewhere(work: Callable[[], Any]) -> None:
    """Do something in a thread with a connection of its own, as another worker would."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as problem:  # noqa: BLE001 - shown by the test
            problems.append(problem)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert not problems


def end_what_is_due() -> None:
    elsewhere(drain)


def happen() -> None:
    for work in between:
        work()


@task(atomic=False)
def plain(cqt: Any, id: str | None = None) -> Any:
    first = Task.objects.get(id=id) if id else calc_a.delay(3)
    happen()
    return first.chain(add_a_to_4, (4,))


@task
def atomic(cqt: Any, id: str | None = None) -> Any:
    first = Task.objects.get(id=id) if id else calc_a.delay(3)
    happen()
    return first.chain(add_a_to_4, (4,))


@task
async def asynchronous(cqt: Any, id: str | None = None) -> Any:
    first = await (Task.objects.aget(id=id) if id else calc_a.adelay(3))
    await in_db(happen)
    return await first.achain(add_a_to_4, (4,))


@task(atomic=False)
def adopt_ended(cqt: Any, id: str) -> Any:
    return Task.objects.get(id=id)


BODIES = [plain, atomic, asynchronous]


def check(root: Task) -> None:
    root.refresh_from_db()
    assert (root.status, root.result) == (Status.SUCCESS, 10), root.error
    rows = {row.func_name: row for row in Task.objects.all()}
    first, link = rows[calc_a.name], rows[add_a_to_4.name]
    assert link.previous_id == first.id
    assert (first.parent_id, link.parent_id) == (root.id, root.id)
    assert (first.root_id, link.root_id, first.depth, link.depth) == (root.id, root.id, 1, 1)
    assert (root.children_open, root.children_failed) == (0, 0)
    assert Stream.objects.get(root=root.id).tree_open == 0
    assert not Stream.objects.filter(open=True).exists()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_without_the_race(body: Any) -> None:
    root = body.delay()
    drain()
    check(root)


@pytest.mark.parametrize("body", [plain, asynchronous], ids=lambda body: body.__name__)
def test_the_task_ends_before_it_is_chained(body: Any) -> None:
    between.append(end_what_is_due)
    root = body.delay()
    drain()
    check(root)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_task_from_outside_ends_before_it_is_chained(body: Any) -> None:
    first = calc_a.delay(3)
    elsewhere(drain)
    root = body.delay(str(first.id))
    drain()
    check(root)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_task_from_outside_ends_while_it_is_chained(body: Any) -> None:
    first = calc_a.using(queue="other").delay(3)
    between.append(lambda: elsewhere(lambda: drain(queues=["other"])))
    root = body.delay(str(first.id))
    drain(queues=["default"])
    drain()
    check(root)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_the_task_has_failed_before_it_is_chained(body: Any) -> None:
    first = fail.delay("no luck")
    elsewhere(drain)
    root = body.delay(str(first.id))
    drain()
    root.refresh_from_db()
    assert (root.status, root.error) == (Status.INCOMPLETE, "no luck")
    assert root.subtasks.get(func_name=add_a_to_4.name).status == Status.REVOKED


def test_returning_a_task_that_has_ended() -> None:
    done, failed = calc_a.delay(3), fail.delay("no luck")
    drain()
    good, bad = adopt_ended.delay(str(done.id)), adopt_ended.delay(str(failed.id))
    drain()
    good.refresh_from_db()
    bad.refresh_from_db()
    assert (good.status, good.result) == (Status.SUCCESS, 2)
    assert (bad.status, bad.error) == (Status.INCOMPLETE, "no luck")


def test_returning_a_task_that_another_parent_has_taken() -> None:
    done = calc_a.delay(3)
    drain()
    first, second = adopt_ended.delay(str(done.id)), adopt_ended.delay(str(done.id))
    drain()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == (Status.SUCCESS, Status.FAILURE)
    assert "belongs to another parent" in str(second.error)

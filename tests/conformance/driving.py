"""
Driving the engine by hand: what a worker does to rows, without a worker.

A `Hand` is a worker's row and the claims it holds. It takes tasks as the claimer does, runs
a body of the test's choice in their place with the real `cqt`, and hands the outcome to the
real completion, so that every row a test looks at was written by the engine itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from cq import conf
from cq.definition import registry
from cq.definition.outcome import Crashed, Failed, Outcome, Released, Retrying
from cq.definition.status import TERMINAL, Status
from cq.execution.context import Context
from cq.execution.invocation import failed, succeeded
from cq.models import Stream, Task, Worker
from cq.models.streams import Line
from cq.models.transitions import Claimed, Want
from cq.progress.buffer import AttemptBuffer
from cq.workflow.claim import claim
from cq.workflow.completion import Completion, complete
from tests.settings import DATABASE_KIND

P, Q, R, Y, W = (Status(letter) for letter in "PQRYW")
S, F, I, L, E = (Status(letter) for letter in "SFILE")  # noqa: E741 - the letters of the rows

Body = Callable[[Any], Any]

on_postgres = pytest.mark.skipif(
    DATABASE_KIND != "postgres", reason="about row locks or plans, which SQLite has not"
)


class Hand:
    """A worker that does what the test says."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        self.row = Worker.objects.create(names=list(names or registry.names()))
        self.held: dict[UUID, Claimed] = {}

    def claim(self, limit: int = 1000, queues: Sequence[str] | None = None) -> list[Claimed]:
        """Take what is due, in the claimer's order, and hold it."""
        taken = claim(self.row.pk, [Want(tuple(registry.names()), limit)], queues)
        self.held |= {claimed.id: claimed for claimed in taken}
        return taken

    def take(self, task: Task | UUID) -> Claimed:
        """Hold this task; it must be due."""
        id = task if isinstance(task, UUID) else task.id
        if id not in self.held:
            self.claim()
        return self.held[id]

    def end(self, claimed: Claimed | Task | UUID, outcome: Outcome, **facts: Any) -> Status | None:
        """Complete a held attempt; None if it was void."""
        return complete([self.ending(claimed, outcome, **facts)]).get(_id(claimed))

    def ending(self, claimed: Claimed | Task | UUID, outcome: Outcome, **facts: Any) -> Completion:
        """The completion of a held attempt, not yet written."""
        held = claimed if isinstance(claimed, Claimed) else self.take(_id(claimed))
        self.held.pop(held.id, None)
        function = registry.lookup(held.func_name)
        values = {
            "stores_result": function.options.store_result,
            "at_most_once": function.options.at_most_once,
        }
        return Completion(claimed=held, outcome=outcome, **values | facts)

    def run(self, task: Claimed | Task | UUID, body: Body | None = None) -> Status | None:
        """Run a body in the place of the task's own, and complete the attempt."""
        return complete([self.ran(task, body)]).get(_id(task))

    def ran(self, task: Claimed | Task | UUID, body: Body | None = None) -> Completion:
        """The completion of such a run, not yet written."""
        held = task if isinstance(task, Claimed) else self.take(_id(task))
        buffer = AttemptBuffer(conf.current().max_lines)
        context = Context(held, buffer)
        try:
            outcome: Outcome = succeeded(context, body(context) if body else None)
        except Exception as problem:  # noqa: BLE001 - what a body raises is its outcome
            outcome = failed(registry.lookup(held.func_name), held, problem)
        return self.ending(held, outcome, lines=buffer.take(everything=True))

    def fail(self, task: Claimed | Task | UUID, message: str = "on purpose") -> Status | None:
        """End a held attempt as Failure."""
        return self.end(task, failure(message))

    def run_all(self, bodies: dict[UUID, Body] | None = None) -> int:
        """Claim and run until nothing is due; return how many runs that took."""
        runs = 0
        while self.held or self.claim():
            for claimed in list(self.held.values()):
                self.run(claimed, (bodies or {}).get(claimed.id))
                runs += 1
        return runs

    def die(self) -> None:
        """Count as dead from now on, as an observer declares it."""
        Worker.objects.filter(pk=self.row.pk).update(alive=False)


def _id(task: Claimed | Task | UUID) -> UUID:
    return task if isinstance(task, UUID) else task.id


def failure(message: str = "on purpose") -> Failed:
    return Failed(error=_error(message))


def retrying(message: str = "once more", delay: float = 0.0) -> Retrying:
    return Retrying(error=_error(message), delay=delay)


def released() -> Released:
    return Released("the worker stops")


def crashed() -> Crashed:
    return Crashed("the child process died")


def _error(message: str) -> dict[str, Any]:
    return {"type": "builtins.ValueError", "message": message, "traceback": "", "at": "now"}


def line(claimed: Claimed, message: str = "a line", level: int = logging.INFO) -> Line:
    """A log line of a held attempt."""
    return Line(
        task=claimed.id,
        token=claimed.token,
        attempt=claimed.attempt,
        func_name=claimed.func_name,
        level=level,
        message=message,
        at=datetime.now(UTC),
        root=claimed.root,
    )


def stale(claimed: Claimed) -> Claimed:
    """The same claim under a token that was never given out."""
    from dataclasses import replace

    return replace(claimed, token=uuid4())


def fresh(task: Task | UUID) -> Task:
    """The row as it is now."""
    return Task.objects.get(pk=_id(task))


def status(task: Task | UUID | Any) -> Status:
    """The status of the row now."""
    return Status(Task.objects.values_list("status", flat=True).get(pk=_id(task)))


def rung(bells: list[str], *tasks: Task) -> bool:
    """Whether exactly these were rung for since the last look."""
    heard, bells[:] = sorted(bells), []
    return heard == sorted(f"{task.queue} {task.id.hex}" for task in tasks)


def errorback_calls(task: Task) -> int:
    return Task.objects.filter(func_name="cq.tasks.call_errorback", args__0=str(task.id)).count()


def by_name(root: Task | UUID) -> dict[Any, Task]:
    """The rows of a tree that were made by `echo`, by their first argument."""
    rows = Task.objects.filter(root=_id(root))
    return {row.args[0]: row for row in rows if row.args}


def check_invariants() -> None:
    """Raise if a committed row breaks P17 to P20, or a stream counts wrongly."""
    rows = {row.id: row for row in Task.objects.all()}
    children: dict[UUID, list[Task]] = {}
    for row in rows.values():
        if row.parent_id:
            children.setdefault(row.parent_id, []).append(row)
    for row in rows.values():
        _check_row(row, rows, children.get(row.id, []))
    open_rows: dict[UUID, int] = {}
    for row in rows.values():
        open_rows.setdefault(row.root_uuid, 0)
        open_rows[row.root_uuid] += row.status not in TERMINAL
    for stream in Stream.objects.all():
        counted = open_rows.pop(stream.root, None)
        assert counted == stream.tree_open, f"{stream.root}: {stream.tree_open} for {counted}"
        assert stream.open == (counted > 0)
    for root in open_rows:
        members = [row for row in rows.values() if row.root_uuid == root]
        assert len(members) == 1, f"a tree of {len(members)} has no stream"


def _check_row(row: Task, rows: dict[UUID, Task], children: list[Task]) -> None:
    still_open = [child for child in children if child.status not in TERMINAL]
    if row.status in (S, I):
        assert not still_open, f"{row} has open children {still_open}"
    if row.status not in TERMINAL:
        assert row.children_open == len(still_open), f"{row}: {row.children_open} {still_open}"
    if row.status == W:
        assert still_open, f"{row} waits for nothing"
    if row.status == S:
        assert row.children_failed == 0
    if row.status == P and row.previous_id:
        assert rows[row.previous_id].status not in TERMINAL, f"{row} is held behind an end"
    if row.parent_id:
        assert row.root_id == rows[row.parent_id].root_uuid
        assert row.depth == rows[row.parent_id].depth + 1

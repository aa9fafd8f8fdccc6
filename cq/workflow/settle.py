"""
What follows when tasks have ended: successors, parents, errorbacks, streams.

One pass for everybody who ends a task (completion, revoke, rescue, a link put onto an
ended task), in the one order in which rows are locked: own rows first, then successors,
then ancestors by depth, deepest first, then by id, and streams last. Families are
climbed by a loop, so that a parent is ended by the same code as its child.
"""

import json
from collections.abc import Sequence

from cq import conf
from cq.definition.ids import uuid7
from cq.definition.payload import JSON
from cq.definition.registry import find
from cq.definition.signature import NewTask
from cq.definition.status import Status
from cq.failpoints import reached
from cq.models.queries import Relative, roots_with_company
from cq.models.sql import Dialect
from cq.models.transitions import (
    PREDECESSOR_FAILED,
    EndedChild,
    Moved,
    forget_results,
    insert,
    release_successors,
    settle_parents,
)
from cq.workflow.aftermath import Aftermath

ERRORBACK_TASK = "cq.tasks.call_errorback"
_TOLD = frozenset({Status.FAILURE, Status.LOST, Status.INCOMPLETE})


def settle(
    db: Dialect,
    ended: Sequence[Moved],
    aftermath: Aftermath,
    children: Sequence[tuple[int, EndedChild]] = (),
) -> None:
    """
    Carry the end of these tasks to everything that waited for it; write no stream yet.

    `children` are further changes to count at parents, each with the child's depth.
    Expects the transaction in which the rows ended. What changed is added to the
    aftermath, whose `count` must be the transaction's last statement.
    """
    settings = conf.current()
    waiting: dict[int, list[EndedChild]] = {}
    for depth, child in children:
        waiting.setdefault(depth, []).append(child)
    fresh = _without_the_lone(db, ended, aftermath)
    while fresh or waiting:
        if fresh:
            _note(db, fresh, waiting, aftermath)
            released = release_successors(db, fresh, failure_ttl=settings.failure_ttl)
            reached("mid_settle", fresh)
            fresh = [row for row in released if row.status is Status.REVOKED]
            for row in released:
                if row.status is Status.QUEUED:
                    aftermath.ring(row.queue, [row.id])
                    aftermath.moved.append(row)
        else:
            fresh = settle_parents(
                db,
                waiting.pop(max(waiting)),
                success_ttl=settings.success_ttl,
                failure_ttl=settings.failure_ttl,
            )
            forget_results(db, [row.id for row in fresh if not _stores_result(row)])


def _without_the_lone(db: Dialect, ended: Sequence[Moved], aftermath: Aftermath) -> list[Moved]:
    # Most tasks are trees of one that nobody waits for: one look tells, and two statements
    # less are needed. Whoever adds to a tree locks the task first, so none is overlooked.
    lone = [
        row
        for row in ended
        if row.parent is None
        and row.root is None
        and not row.has_errorbacks
        and row.id not in aftermath.trees
        and row.id not in aftermath.adopted
    ]
    if not lone:
        return list(ended)
    company = roots_with_company(db, [row.id for row in lone])
    alone = {row.id for row in lone if row.id not in company}
    aftermath.ended_alone([row for row in lone if row.id in alone])
    return [row for row in ended if row.id not in alone]


def _stores_result(row: Moved) -> bool:
    # A waiting task keeps its result for those behind it, whatever its function stores.
    function = find(row.func_name)
    return function is None or function.options.store_result


def _note(
    db: Dialect,
    ended: Sequence[Moved],
    waiting: dict[int, list[EndedChild]],
    aftermath: Aftermath,
) -> None:
    aftermath.ended(ended)
    for row in ended:
        if row.parent is not None:
            failed = row.status is not Status.SUCCESS
            error = None if row.error == PREDECESSOR_FAILED else row.error
            result = None if failed else row.result
            child = EndedChild(row.id, row.parent, failed, error, result)
            waiting.setdefault(row.depth, []).append(child)
    told = [row for row in ended if row.has_errorbacks and row.status in _TOLD]
    if told:
        _enqueue_errorbacks(db, told, aftermath)


def _enqueue_errorbacks(db: Dialect, ended: Sequence[Moved], aftermath: Aftermath) -> None:
    by_id = {row.id: row for row in ended}
    rows = db.run(
        f"SELECT t.id, t.errorbacks FROM cq_task AS t WHERE t.id {db.ids('ids')}",
        {"ids": db.id_list(by_id)},
    )
    for id, errorbacks in rows:
        row = by_id[db.uuid(id)]  # type: ignore[index]
        call_errorbacks(db, row, json.loads(errorbacks), aftermath)


def call_errorbacks(
    db: Dialect, row: Moved | Relative, entries: Sequence[JSON], aftermath: Aftermath
) -> None:
    """Enqueue the call of errorbacks, one task each, in the tree of the task that ended."""
    tasks = [
        NewTask(
            id=uuid7(),
            func_name=ERRORBACK_TASK,
            args=json.dumps([str(row.id), row.error, entry]),
            kwargs="{}",
            queue=row.queue,
            root=row.root_uuid,
            depth=row.depth,
        )
        for entry in entries
    ]
    # In a batch with the row's own end its tree still counts the row itself.
    aftermath.grown(row.root_uuid, len(tasks), base=1 if isinstance(row, Moved) else 0)
    aftermath.inserted(insert(db, tasks))
    reached("mid_errorbacks", [row])

"""
Children and adopted children: how a parent comes to wait.

Subtasks of a body are plans until the body has ended; `completion.py` inserts them. Here
are the two other ways to get a child: adding one to a committed task from outside, and
adopting the tree of a task that the body delayed and then returned.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from cq import conf
from cq.definition.link import plan_subtask
from cq.definition.status import Status
from cq.errors import InvalidOption
from cq.models.queries import Relative, lock_tree, move_tree, rows_by_id
from cq.models.sql import Dialect
from cq.models.task import Task
from cq.models.transitions import PREDECESSOR_FAILED, EndedChild, Moved
from cq.workflow.aftermath import Aftermath
from cq.workflow.enqueue import insert_new, ring_if_passed_over
from cq.workflow.settle import ERRORBACK_TASK


def subtask(task: Task, fn: Any, /, *args: Any, **kwargs: Any) -> Task:
    """
    Add a child to a committed task that has not ended, and return it.

    The parent ends only after it. Inside a body use `cqt.subtask()`, which belongs to
    the attempt and vanishes with it.
    """
    plan = plan_subtask(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
    plan.parent = task.id
    return insert_new([plan])[0]


def adopt(
    db: Dialect, id: UUID, child: UUID, batch: dict[UUID, Moved], aftermath: Aftermath
) -> tuple[int, list[EndedChild]]:
    """
    Make the tree of a delayed task part of a parent's, because its body returned it.

    Returns how many children the parent waits for now, and those among them that had
    ended before this transaction. The rows are locked, so none of them ends unseen. The
    parent and those of its new descendants that moved in the same transaction are in
    `batch`, and are put where they belong now. A child that belongs to another parent is
    refused.
    """
    parent = batch[id]
    found = rows_by_id([child]).get(child)
    if found is None:
        raise InvalidOption(
            f"The body returned task {child}, which does not exist. Return a task that was "
            "delayed in the same transaction or committed before."
        )
    if found.parent_id == parent.id:
        return 0, []
    members = {} if found.root_uuid == parent.root_uuid else lock_tree(db, found.root_uuid)
    if child not in members or members[child].parent is not None:
        raise InvalidOption(
            f"The body returned task {child}, which belongs to another parent. Return a subtask "
            "of this task, or one that it delayed itself."
        )
    _refuse_too_deep(parent, members.values())
    heads = [row for row in members.values() if _is_head(row)]
    move_tree(db, members, [row.id for row in heads], parent.id, parent.root_uuid, parent.depth + 1)
    aftermath.adopt(found.root_uuid, parent.root_uuid)
    # Those that ended just now are still to be counted out, by whoever settles the batch.
    still_open = [row for row in members.values() if not row.is_terminal or row.id in batch]
    # Also by none: a tree of two has a stream, whoever may be chained behind it later.
    aftermath.grown(parent.root_uuid, len(still_open))
    for row in still_open:
        ring_if_passed_over(row, aftermath)
    ended = [_ended(parent, row) for row in heads if row.is_terminal and row.id not in batch]
    _follow_tree(batch, parent, members.values())
    return len(heads), ended


def _follow_tree(batch: dict[UUID, Moved], parent: Moved, members: Iterable[Relative]) -> None:
    for row in members:
        if row.id in batch:
            batch[row.id] = replace(
                batch[row.id],
                parent=parent.id if _is_head(row) else row.parent,
                root=parent.root_uuid,
                depth=row.depth + parent.depth + 1,
            )


def _is_head(row: Relative) -> bool:
    # Nobody waits for errorbacks; they only share the tree.
    return row.parent is None and row.func_name != ERRORBACK_TASK


def _refuse_too_deep(parent: Moved, rows: Iterable[Relative]) -> None:
    deepest = parent.depth + 1 + max(row.depth for row in rows)
    limit = conf.current().max_depth
    if deepest >= limit:
        raise InvalidOption(
            f"The body returned a task whose tree would reach {deepest} levels below its root, "
            f"and CQ['MAX_DEPTH'] is {limit}. Build wider trees, or chain instead of nesting."
        )


def _ended(parent: Moved, row: Relative) -> EndedChild:
    is_good = row.status is Status.SUCCESS
    error = None if row.error == PREDECESSOR_FAILED else row.error
    return EndedChild(row.id, parent.id, not is_good, error, row.result if is_good else None)

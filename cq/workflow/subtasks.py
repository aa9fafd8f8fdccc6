"""
Children and adopted children: how a parent comes to wait.

Subtasks of a body are plans until the body has ended; `completion.py` inserts them. Here
are the two other ways to get a child: adding one to a committed task from outside, and
adopting the tree of a task that the body delayed and then returned.
"""

from typing import Any
from uuid import UUID

from cq import conf
from cq.definition.link import plan_subtask
from cq.definition.status import Status
from cq.errors import InvalidOption
from cq.models.queries import lock_heads, lock_relatives
from cq.models.sql import Dialect
from cq.models.streams import move_record
from cq.models.task import Task
from cq.models.transitions import EndedChild, Moved
from cq.workflow.aftermath import Aftermath
from cq.workflow.enqueue import insert_new


def subtask(task: Task, fn: Any, *args: Any, **kwargs: Any) -> Task:
    """
    Add a child to a committed task that has not ended, and return it.

    The parent ends only after it. Inside a body use `cqt.subtask()`, which belongs to
    the attempt and vanishes with it.
    """
    plan = plan_subtask(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
    plan.parent = task.id
    return insert_new([plan])[0]


def adopt(
    db: Dialect, parent: Moved, child: UUID, aftermath: Aftermath
) -> tuple[int, list[EndedChild]]:
    """
    Make the tree of a delayed task part of the parent's, because its body returned it.

    Returns how many children the parent waits for now, and those among them that have
    ended already. The rows are locked, so none of them ends unseen. A child that
    belongs to another parent is refused.
    """
    row = lock_relatives(db, [child]).get(child)
    if row is None:
        raise InvalidOption(
            f"The body returned task {child}, which does not exist. Return a task that was "
            "delayed in the same transaction or committed before."
        )
    if row.parent == parent.id:
        return 0, []
    if row.root_uuid == parent.root_uuid or row.parent is not None:
        raise InvalidOption(
            f"The body returned task {child}, which belongs to another parent. Return a subtask "
            "of this task, or one that it delayed itself."
        )
    source, target = row.root_uuid, parent.root_uuid
    heads = lock_heads(db, source)
    params = {"source": source.hex, "target": target.hex, "parent": parent.id.hex}
    opened = db.run(
        """SELECT count(*) FROM cq_task WHERE (id = %(source)s OR root_id = %(source)s)
        AND status IN ('P', 'Q', 'R', 'Y', 'W')""",
        params,
    )[0][0]
    db.count(
        """UPDATE cq_task SET root_id = %(target)s, depth = depth + %(deeper)s,
            parent_id = CASE WHEN parent_id IS NULL THEN %(parent)s ELSE parent_id END
        WHERE id = %(source)s OR root_id = %(source)s""",
        {**params, "deeper": parent.depth + 1},
    )
    move_record(db, source, target)
    if opened:
        aftermath.grown(target, opened)
    ended = [
        EndedChild(
            head.id,
            parent.id,
            head.status is not Status.SUCCESS,
            head.error,
            head.result if head.status is Status.SUCCESS else None,
        )
        for head in heads
        if head.is_terminal
    ]
    return len(heads), ended

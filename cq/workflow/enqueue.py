"""
The one way in: signatures become rows, in the caller's transaction.

The id is known at once; after the commit a bell rings. A row with a parent or a
predecessor is attached to it here, and if that one has already ended, what follows its
end follows at once.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from django.db.models.base import ModelState

from cq import conf
from cq.definition.payload import check_json, dumps
from cq.definition.registry import lookup
from cq.definition.signature import NewTask, Signature, check_call, new_task
from cq.definition.status import CLAIMABLE, TERMINAL, Status
from cq.errors import DuplicateSubmit, InvalidArguments, InvalidOption
from cq.failpoints import reached
from cq.models.queries import Relative, database, holder_of_key, lock_relatives, rows_by_id
from cq.models.sql import Dialect, dialect
from cq.models.task import Task
from cq.models.transitions import Inserted, Moved, insert, queue_pending
from cq.signals import task_enqueued
from cq.workflow.aftermath import Aftermath
from cq.workflow.settle import settle
from cq.workflow.transaction import engine_transaction, repeated

_TRIES = 100


def enqueue(signature: Signature) -> Task:
    """
    Insert the row of a signature and return it; ring for it after the commit.

    A coalesced signature returns the task it merged with. Rolls back with the caller.
    """
    return insert_new([new_task(signature, max_args_bytes=conf.current().max_args_bytes)])[0]


def enqueue_many(signatures: Iterable[Signature]) -> list[Task]:
    """
    Insert many rows in one statement, all or none, and return them in order.

    The error about a call that cannot be made says which one it is, from 0.
    """
    limit = conf.current().max_args_bytes
    tasks = []
    for call, signature in enumerate(signatures):
        try:
            tasks.append(new_task(signature, max_args_bytes=limit))
        except InvalidArguments as problem:
            facts = problem.facts | {"call": call}
            raise InvalidArguments(f"calls[{call}]: {problem}", **facts) from None
    return insert_new(tasks)


def insert_new(tasks: Sequence[NewTask]) -> list[Task]:
    """Insert planned rows; the rest of `enqueue_many`, for plans that others have made."""
    if not tasks:
        return []
    reached("before_insert", tasks)
    plain = not any(task.parent or task.previous or task.unique_key or task.tick for task in tasks)
    if plain:
        db = dialect()
        aftermath = Aftermath()
        rows = {row.id: row for row in insert(db, tasks)}
        aftermath.inserted(rows[task.id] for task in tasks if task.status is Status.QUEUED)
        aftermath.tell_after_commit()
        made = [row_made(task, rows[task.id]) for task in tasks]
    else:
        made = repeated(lambda: _insert_related(tasks))
    for row in made:
        if not row.is_merged:
            task_enqueued.send_robust(sender=Task, task=row)
    reached("after_insert", tasks)
    return made


def _insert_related(tasks: Sequence[NewTask]) -> list[Task]:
    # Keys in one order for everybody, so that two bulk calls cannot wait for each other.
    ordered = sorted(tasks, key=lambda task: (task.unique_key or "", task.id))
    with engine_transaction() as db:
        aftermath = Aftermath()
        relatives = _lock_family(db, ordered)
        for task in ordered:
            attach(task, relatives)
        made: dict[UUID, Task] = {}
        inserted: list[NewTask] = []
        queued: list[Inserted] = []
        for task, row in _insert_unique(db, ordered):
            if isinstance(row, Task):
                made[task.id] = row
            else:
                made[task.id] = row_made(task, row)
                inserted.append(task)
                if task.status is Status.QUEUED:
                    queued.append(row)
        aftermath.inserted(queued)
        for relative in relatives.values():
            ring_if_passed_over(relative, aftermath)
        follow(db, inserted, relatives, aftermath)
        aftermath.count(db)
        aftermath.tell_after_commit()
    return [made[task.id] for task in tasks]


def _insert_unique(db: Dialect, tasks: Sequence[NewTask]) -> list[tuple[NewTask, Inserted | Task]]:
    found: list[tuple[NewTask, Inserted | Task]] = []
    left = list(tasks)
    for _ in range(_TRIES):
        rows = {row.id: row for row in insert(db, left)}
        found += [(task, rows[task.id]) for task in left if task.id in rows]
        again = []
        for task in left:
            if task.id in rows:
                continue
            winner = holder_of_key(db, task)
            if winner is None:
                # The holder ended between the two statements: there is room now.
                again.append(task)
            else:
                winner.is_merged = True
                found.append((task, winner))
        left = again
        if not left:
            return found
    raise InvalidOption(
        f"{left[0].func_name!r} could not be coalesced in {_TRIES} tries: tasks with its key come "
        "and go faster than they can be found. Use a narrower unique_key.",
    )


def _lock_family(db: Dialect, tasks: Sequence[NewTask]) -> dict[UUID, Relative]:
    """Lock parents, predecessors, and the parents that a link will share with its predecessor."""
    previous = {task.previous for task in tasks if task.previous}
    wanted = previous | {task.parent for task in tasks if task.parent}
    while True:
        relatives = lock_relatives(db, wanted)
        shared = {relatives[id].parent for id in previous if id in relatives}
        missing = {id for id in shared if id is not None} - wanted
        if not missing:
            return relatives
        wanted |= missing


def attach(task: NewTask, relatives: dict[UUID, Relative]) -> None:
    """Give a plan the tree, depth and status that its parent or predecessor implies."""
    previous = _relative(task, "previous", task.previous, relatives)
    parent = _relative(task, "parent", task.parent, relatives)
    shared = relatives.get(previous.parent) if previous and previous.parent else None
    if previous is not None and parent in (None, shared):
        # The parent that waits for the predecessor waits for its link as well, if it still does.
        task.parent = shared.id if shared is not None and not shared.is_terminal else None
        task.root, task.depth = previous.root_uuid, previous.depth if task.parent else 0
    elif parent is not None:
        if parent.is_terminal:
            raise InvalidOption(
                f"{task.func_name!r} was to be a subtask of task {parent.id}, which is "
                f"{parent.status.label} already. Add it while the parent is open, or chain it."
            )
        task.root, task.depth = parent.root_uuid, parent.depth + 1
    if previous is not None:
        task.status = Status.PENDING
    if task.depth >= conf.current().max_depth:
        raise InvalidOption(
            f"{task.func_name!r} would be {task.depth} levels below its root. The limit is "
            "CQ['MAX_DEPTH']; build wider trees, or chain instead of nesting."
        )


def _relative(
    task: NewTask, role: str, id: UUID | None, relatives: dict[UUID, Relative]
) -> Relative | None:
    if id is None:
        return None
    if id == task.id:
        raise InvalidOption(f"Task {id} cannot be its own {role}. Name another task.")
    if id not in relatives:
        raise InvalidOption(
            f"No task {id} is there to be the {role} of {task.func_name!r}. It may have been "
            "pruned, or its transaction was rolled back."
        )
    return relatives[id]


def ring_if_passed_over(row: Relative, aftermath: Aftermath) -> None:
    """Ring for a claimable row that was locked here: a claim passes over locked rows."""
    if row.status in CLAIMABLE:
        aftermath.ring(row.queue, [row.id])


def follow(
    db: Dialect,
    tasks: Sequence[NewTask],
    relatives: dict[UUID, Relative],
    aftermath: Aftermath,
) -> None:
    """
    Count new rows at their parents and trees; settle those behind an ended predecessor.

    Expects the relatives to be locked, so that none of them ends meanwhile unseen.
    """
    growth: dict[UUID, int] = {}
    for task in tasks:
        if task.parent is not None:
            growth[task.parent] = growth.get(task.parent, 0) + 1
        if task.root is not None:
            relative = relatives.get(task.parent or task.previous or task.root)
            alone = relative is not None and relative.root is None and relative.is_terminal
            aftermath.grown(task.root, 1, base=0 if alone else 1)
    for parent in sorted(growth):
        db.count(
            "UPDATE cq_task SET children_open = children_open + %(n)s WHERE id = %(id)s",
            {"id": parent.hex, "n": growth[parent]},
        )
    previous = {task.previous for task in tasks if task.previous}
    over = [relatives[id] for id in sorted(previous) if relatives[id].status in TERMINAL]
    if over:
        _follow_ended(db, over, aftermath)


def _follow_ended(db: Dialect, over: Sequence[Relative], aftermath: Aftermath) -> None:
    from_past = Aftermath()
    settle(db, [_as_moved(row) for row in over], from_past)
    # The predecessors themselves were counted when they ended.
    for row in over:
        from_past.tree(row.root_uuid).delta += 1
    aftermath.moved += [row for row in from_past.moved if row.id not in {r.id for r in over}]
    for queue, ids in from_past.bells.items():
        aftermath.ring(queue, ids)
    for root, change in from_past.trees.items():
        aftermath.tree(root).delta += change.delta


def _as_moved(row: Relative) -> Moved:
    # Without parent and errorbacks: those were told when the row really ended.
    return Moved(
        id=row.id,
        status=row.status,
        func_name=row.func_name,
        queue=row.queue,
        parent=None,
        root=row.root,
        depth=row.depth,
        error=row.error,
        has_errorbacks=False,
        result=row.result,
    )


def submit(task: Task, *pre_args: object) -> None:
    """
    Queue a task that was made with `submit=False`, with arguments put before its own.

    A revoked task stays revoked, silently. Any other that is no longer held raises
    DuplicateSubmit. Takes effect with the caller's transaction.
    """
    args = None
    if pre_args:
        function = lookup(task.func_name)
        merged = check_json(
            [*pre_args, *task.args], "args", max_bytes=conf.current().max_args_bytes
        )
        check_call(function, merged, task.kwargs)  # type: ignore[arg-type]
        args = dumps(merged)
    with engine_transaction() as db:
        moved = queue_pending(db, task.id, args)
        if moved:
            aftermath = Aftermath()
            aftermath.ring(moved[0].queue, [moved[0].id])
            aftermath.moved += moved
            aftermath.tell_after_commit()
            task.status = Status.QUEUED
            if args is not None:
                task.args = json.loads(args)
            return
    current = rows_by_id([task.id]).get(task.id)
    if current is None or current.status != Status.REVOKED:
        state = Status(current.status).label if current else "gone"
        raise DuplicateSubmit(
            f"Task {task.id} was submitted again, but it is {state}. Only a Pending task made "
            "with submit=False and without a predecessor can be submitted.",
            task_id=task.id,
        )


@cache
def _blank() -> dict[str, Any]:
    return {name: value for name, value in vars(Task()).items() if name != "_state"}


def row_made(task: NewTask, row: Inserted) -> Task:
    """The row of an inserted plan, without reading it."""
    # Made without Model.__init__, which costs 0.1 ms for the defaults of 47 columns.
    made = Task.__new__(Task)
    vars(made).update(_blank())
    vars(made).update(
        id=task.id,
        func_name=task.func_name,
        args=json.loads(task.args) if task.args != "[]" else [],
        kwargs=json.loads(task.kwargs) if task.kwargs != "{}" else {},
        status=task.status.value,
        queue=task.queue,
        priority=task.priority,
        run_at=row.run_at,
        expires_at=row.expires_at,
        submitted=row.submitted,
        parent_id=task.parent,
        root_id=task.root,
        previous_id=task.previous,
        depth=task.depth,
        pass_result=task.pass_result,
        force_chain=task.force_chain,
        max_retries=task.max_retries,
        timeout=task.timeout,
        at_most_once=task.at_most_once,
        result_ttl=task.result_ttl,
        unique_key=task.unique_key,
        unique_running=task.unique_running,
        errors=[],
        errorbacks=list(task.errorbacks or []),
        owner=task.owner,
        repeating_id=task.repeating,
        tick=task.tick,
        missed=task.missed,
        _state=ModelState(),
    )
    made._state.adding = False
    made._state.db = database()
    return made

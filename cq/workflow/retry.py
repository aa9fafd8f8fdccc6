"""
Retry by a person: an ended root runs again, or only what failed below it.

The history stays: children of the earlier generation keep their rows and count no more,
and so do the errors of earlier attempts. Budgets start afresh.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from uuid import UUID

from django.db import connections, transaction

from cq.definition.status import ERROR, Status
from cq.errors import IllegalTransition
from cq.models.queries import (
    Relative,
    database,
    holder_of_lost_key,
    lock_relatives,
    lock_tree,
    open_family,
    read_relatives,
    revoked_links,
)
from cq.models.sql import Dialect, dialect
from cq.models.task import Task
from cq.models.transitions import (
    PREDECESSOR_FAILED,
    Moved,
    hold_again,
    run_again,
    wait_again,
)
from cq.workflow.aftermath import Aftermath, nudge_after_commit
from cq.workflow.revoke import revoke_now
from cq.workflow.transaction import engine_transaction, repeated

logger = logging.getLogger("cq.workflow")

_RETRIED = frozenset({Status.FAILURE, Status.LOST, Status.REVOKED})


def retry(task: Task | UUID, *, failed_only: bool = False) -> None:
    """
    Queue a failed, incomplete, lost or revoked root again.

    With `failed_only` only what failed below an Incomplete root, which waits for it once
    more: failed, lost and revoked descendants run with fresh budgets, links that were
    revoked behind them are held again, and what has succeeded keeps its result.

    Raises IllegalTransition for any other status, for a child (retry its root), while a
    descendant is still open, and when a newer task has taken its unique key. Inside an
    atomic block it raises at once as well, and takes effect after the commit; what has
    changed until then is logged.
    """
    if failed_only:
        retry_failed(task)
    else:
        _after_commit(task, _run_again, _refuse_retry)


def retry_failed(task: Task | UUID) -> None:
    """Queue again only what failed below an Incomplete root: `retry(failed_only=True)`."""
    _after_commit(task, _run_failed_again, _refuse_retry_of_failed)


def _after_commit(
    task: Task | UUID,
    work: Callable[[UUID], None],
    refuse: Callable[[Dialect, UUID, Relative | None], None],
) -> None:
    id = task if isinstance(task, UUID) else task.id
    alias = database()
    connection = connections[alias]
    if connection.in_atomic_block:
        promised = {getattr(call, "func", None) for _, call, *_ in connection.run_on_commit}
        if revoke_now not in promised:
            # Now, while somebody listens. A revoke to come decides what there will be to retry.
            db = dialect()
            refuse(db, id, read_relatives(db, [id]).get(id))
        transaction.on_commit(partial(retry_now, work, id), using=alias)
        return
    repeated(partial(work, id))
    if isinstance(task, Task):
        task.refresh_from_db()


def retry_now(work: Callable[[UUID], None], id: UUID) -> None:
    """Retry after a commit, when nobody is left who could be told of a refusal."""
    try:
        repeated(partial(work, id))
    except IllegalTransition as problem:
        logger.warning("A retry was refused at the commit: %s", problem)


def _run_again(id: UUID) -> None:
    with engine_transaction() as db:
        _refuse_retry(db, id, lock_relatives(db, [id]).get(id))
        aftermath = Aftermath()
        fresh = run_again(db, [id], ERROR)
        _ring(aftermath, fresh)
        while fresh:
            aftermath.moved += fresh
            for moved in fresh:
                aftermath.grown(moved.root_uuid, 1, base=0)
            fresh = hold_again(db, revoked_links(db, [moved.id for moved in fresh]))
        _tell(db, aftermath)


def _run_failed_again(id: UUID) -> None:
    with engine_transaction() as db:
        # The root first, against the order of all others: below one that has ended nobody locks
        # anything, and a living tree is neither held up nor waited for in a circle.
        root = lock_relatives(db, [id]).get(id)
        _refuse_retry_of_failed(db, id, root)
        members = lock_tree(db, id)
        again, waiting = _failed_below(members, id)
        if not again:
            raise IllegalTransition(
                f"Nothing below task {id} can be retried by itself. Retry the whole task.",
                task_id=id,
            )
        held = _links_behind(members, {*again, *waiting})
        for link in held:
            if members[link].parent in waiting:
                waiting[members[link].parent] += 1  # type: ignore[index]
        aftermath = Aftermath()
        queued = run_again(db, again, _RETRIED)
        _ring(aftermath, queued)
        aftermath.moved += [*wait_again(db, waiting), *queued, *hold_again(db, held)]
        aftermath.grown(members[id].root_uuid, len(aftermath.moved), base=0)
        _tell(db, aftermath)


def _refuse_retry(db: Dialect, id: UUID, row: Relative | None) -> None:
    _refuse_unless(db, id, row, ERROR, "a Failure, Incomplete, Lost or Revoked task")
    holder = holder_of_lost_key(db, id)
    if holder is not None:
        raise IllegalTransition(
            f"Task {id} cannot be retried: task {holder} has its unique key by now. Wait for "
            "that one, or revoke it first.",
            task_id=id,
            holder=holder,
        )


def _refuse_retry_of_failed(db: Dialect, id: UUID, row: Relative | None) -> None:
    _refuse_unless(db, id, row, {Status.INCOMPLETE}, "an Incomplete task")


def _refuse_unless(
    db: Dialect, id: UUID, row: Relative | None, sources: Iterable[Status], wanted: str
) -> None:
    if row is None or row.status not in sources:
        state = row.status.label if row else "gone"
        raise IllegalTransition(
            f"Task {id} is {state} and cannot be retried so. Only {wanted} can.", task_id=id
        )
    if row.parent is not None:
        raise IllegalTransition(
            f"Task {id} is a subtask and cannot be retried by itself. Retry its root "
            f"{row.root_uuid}.",
            task_id=id,
        )
    open_rows = [other for other in open_family(db, id) if other != id]
    if open_rows:
        raise IllegalTransition(
            f"Task {id} cannot be retried while {len(open_rows)} of its descendants are "
            "open. Wait for them, or revoke the task first.",
            task_id=id,
        )


def _failed_below(
    members: Mapping[UUID, Relative], top: UUID
) -> tuple[list[UUID], dict[UUID, int]]:
    """What is to run again, and the Incomplete tasks above it, each with how many it awaits."""
    below: dict[UUID, list[Relative]] = {}
    for row in members.values():
        # Those that ended before their parent's present run belong to an earlier one; one that was
        # adopted may only have been submitted before it.
        parent = members.get(row.parent) if row.parent else None
        if parent is not None and (row.finished is None or row.finished >= parent.submitted):
            below.setdefault(parent.id, []).append(row)
    again: list[UUID] = []
    waiting: dict[UUID, int] = {}
    level = [top]
    while level:
        children = [child for parent in level for child in below.get(parent, ())]
        waiting.update(dict.fromkeys(level, 0))
        level = [child.id for child in children if child.status is Status.INCOMPLETE]
        again += [child.id for child in children if _is_retried(child)]
    for id in [*again, *sorted(waiting, key=lambda id: -members[id].depth)]:
        above = members[id].parent
        if waiting.get(id) == 0:
            # Nothing of what made it Incomplete is here any more.
            del waiting[id]
        elif id != top and above is not None:
            waiting[above] += 1
    return again, waiting


def _is_retried(row: Relative) -> bool:
    return row.status in _RETRIED and row.error != PREDECESSOR_FAILED


def _links_behind(members: Mapping[UUID, Relative], revived: set[UUID]) -> list[UUID]:
    links = [
        row
        for row in members.values()
        if row.status is Status.REVOKED and row.error == PREDECESSOR_FAILED
    ]
    held: list[UUID] = []
    while fresh := [row.id for row in links if row.previous in revived and row.id not in revived]:
        held += fresh
        revived |= set(fresh)
    return held


def _ring(aftermath: Aftermath, queued: Iterable[Moved]) -> None:
    for row in queued:
        aftermath.ring(row.queue, [row.id])


def _tell(db: Dialect, aftermath: Aftermath) -> None:
    aftermath.count(db)
    aftermath.tell_after_commit()
    nudge_after_commit(aftermath.moved)

"""
The checker: what is kept of a task is derived anew from the rows, and compared.

Counters, statuses, places in trees, streams and their lines, tasks of dead workers: the
rules are in `models/discrepancies.py`. What leaves is a frozen `Report`, empty on a sound
database, also while workers write to it. `repair` mends by the doors that everybody goes
through, under the same locks, and never changes an end.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from cq import conf
from cq.definition.payload import dumps
from cq.definition.status import Status
from cq.models.discrepancies import (
    BY_NAME,
    MANY,
    RULES,
    Discrepancy,
    Rule,
    discrepancies,
    forget_child,
    renew_streams,
    set_children_failed,
)
from cq.models.queries import Relative, lock_relatives, rows_by_id
from cq.models.sql import dialect
from cq.models.task import Task
from cq.models.transitions import (
    PREDECESSOR_FAILED,
    EndedChild,
    Moved,
    end_from,
    put_back,
    release_successors,
)
from cq.workflow.aftermath import Aftermath
from cq.workflow.rescue import rescue_tasks
from cq.workflow.revoke import revoke_now
from cq.workflow.settle import settle
from cq.workflow.transaction import engine_transaction, repeated

INSTANT_SECONDS = 1.0
PROMPT = tuple(rule for rule in RULES if rule.is_prompt)
"""The rules that hold after every commit."""
_LOCK_TIMEOUT_MS = 1000
_ROUNDS = 10
_COUNTERS = ("children_failed", "failed_of_none", "children_open", "open_of_none", "waiting_on")
_STREAMS = frozenset({"tree_open", "no_stream", "seq"})
_pause = threading.Event()


@dataclass(frozen=True, slots=True)
class Report:
    """What a check has found; `counts` by the names of the rules."""

    found: tuple[Discrepancy, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.found)

    @property
    def is_cut(self) -> bool:
        """Whether a rule is broken by more rows than are listed."""
        return any(count >= MANY for count in self.counts.values())

    @property
    def repairable(self) -> tuple[Discrepancy, ...]:
        """What `repair` can mend."""
        return tuple(one for one in self.found if not BY_NAME[one.rule].advice)


def check(rules: Sequence[Rule] = RULES, *, instant: float = INSTANT_SECONDS) -> Report:
    """
    Compare what is kept with what the rows say, and report what differs.

    One statement, hence one snapshot, and a second one only if the first found anything:
    what the engine mends by itself, such as the tasks of a worker that has just died, is
    different or gone an `instant` later. Reads whole tables, locks nothing, and writes nothing.
    """
    found = repeated(lambda: discrepancies(dialect(), rules))
    if found and instant:
        _pause.wait(instant)
    if found:
        again = set(repeated(lambda: discrepancies(dialect(), rules)))
        found = [one for one in found if one in again]
    counts: dict[str, int] = {}
    for one in found:
        counts[one.rule] = counts.get(one.rule, 0) + 1
    return Report(tuple(found), counts)


def repair(report: Report, *, instant: float = INSTANT_SECONDS) -> Report:
    """
    Mend what a report names, and report what is left.

    Rows are locked and looked at again before anything is written. What a mended row sets
    off, such as a parent that ends, is carried on as ever; what that uncovers is mended in
    further rounds. An end is never changed: what contradicts one stays in the report.
    """
    for _ in range(_ROUNDS):
        if not report.repairable:
            break
        _mend(report.repairable)
        report = check(instant=0)
    return check(instant=instant) if report else report


def _mend(found: Sequence[Discrepancy]) -> None:
    named: dict[str, list[UUID]] = {}
    for one in found:
        named.setdefault(one.rule, []).append(UUID(one.id))
    if "orphan" in named:
        rescue_tasks()
        repeated(partial(_free, named["orphan"]))
    for id in named.get("below_revoked", ()):
        revoke_now(id)
    if "held" in named:
        repeated(partial(_let_go, named["held"]))
    counted = [id for rule in _COUNTERS for id in named.get(rule, ())]
    if counted:
        repeated(partial(_count_anew, counted))
    roots = {id for rule in _STREAMS for id in named.get(rule, ())}
    if roots:
        repeated(partial(_renew, roots))


def _count_anew(ids: Collection[UUID]) -> None:
    with engine_transaction(lock_timeout_ms=_LOCK_TIMEOUT_MS) as db:
        # Whoever ends a child has locked it already, and counts it here after this.
        locked = lock_relatives(db, ids)
        rules = [BY_NAME[name] for name in _COUNTERS]
        still = [one for one in discrepancies(db, rules) if UUID(one.id) in locked]
        astray = [UUID(one.id) for one in still if one.rule == "waiting_on"]
        if astray:
            forget_child(db, astray)
        failed = {UUID(one.id): int(one.found) for one in still if "failed" in one.rule}
        if failed:
            set_children_failed(db, failed)
        open_now = {
            UUID(one.id): int(one.kept) - int(one.found) for one in still if "open" in one.rule
        }
        aftermath = Aftermath()
        settle(db, [], aftermath, _counted_down(locked, open_now))
        aftermath.count(db)
        aftermath.tell_after_commit()


def _counted_down(
    locked: Mapping[UUID, Relative], surplus: Mapping[UUID, int]
) -> list[tuple[int, EndedChild]]:
    # A parent that waits for nothing ends by the statement that ends any other, and takes the
    # result of the child it was to have it from.
    parents = rows_by_id(surplus)
    sources = rows_by_id(row.waiting_on for row in parents.values() if row.waiting_on)
    counted = []
    for id, count in surplus.items():
        source = sources.get(parents[id].waiting_on or id)
        result = None
        if source is not None and source.status == Status.SUCCESS and source.result is not None:
            result = dumps(source.result)
        child = EndedChild(parents[id].waiting_on or id, id, count=count, result=result)
        counted.append((locked[id].depth + 1, child))
    return counted


def _let_go(ids: Collection[UUID]) -> None:
    with engine_transaction(lock_timeout_ms=_LOCK_TIMEOUT_MS) as db:
        held = lock_relatives(db, ids)
        before = rows_by_id(row.previous for row in held.values() if row.previous)
        failure_ttl = conf.current().failure_ttl
        over = [_as_moved(row) for row in before.values() if row.is_terminal]
        moved = release_successors(db, over, failure_ttl=failure_ttl) if over else []
        behind_nothing = [id for id, row in held.items() if row.previous not in before]
        moved += end_from(
            db,
            behind_nothing,
            [Status.PENDING],
            Status.REVOKED,
            error=PREDECESSOR_FAILED,
            failure_ttl=failure_ttl,
        )
        aftermath = Aftermath()
        for row in moved:
            if row.status is Status.QUEUED:
                aftermath.ring(row.queue, [row.id])
                aftermath.moved.append(row)
        settle(db, [row for row in moved if row.status is Status.REVOKED], aftermath)
        aftermath.count(db)
        aftermath.tell_after_commit()


def _as_moved(task: Task) -> Moved:
    return Moved(
        id=task.id,
        status=Status(task.status),
        func_name=task.func_name,
        queue=task.queue,
        parent=task.parent_id,
        root=task.root_id,
        depth=task.depth,
        error=task.error,
        has_errorbacks=False,
        result=None if task.result is None else dumps(task.result),
    )


def _free(ids: Collection[UUID]) -> None:
    # Of workers whose rows are gone: those that are there and dead have been rescued.
    with engine_transaction(lock_timeout_ms=_LOCK_TIMEOUT_MS) as db:
        locked = lock_relatives(db, ids)
        still = discrepancies(db, [BY_NAME["orphan"]])
        lost = [UUID(one.id) for one in still if one.found == "none" and UUID(one.id) in locked]
        releases = conf.current().max_releases
        aftermath = Aftermath(moved=put_back(db, lost, backoff=0, max_releases=releases))
        for row in aftermath.moved:
            aftermath.ring(row.queue, [row.id])
        aftermath.tell_after_commit()


def _renew(roots: Collection[UUID]) -> None:
    with engine_transaction(lock_timeout_ms=_LOCK_TIMEOUT_MS) as db:
        renew_streams(db, roots)

"""
Retention: what has ended and has been kept long enough is deleted, tree by tree.

A tree goes when all of it is terminal and past its expiry, never in part before that. The
workers call `prune()` now and then; each call is one short transaction over a bounded
number of rows, passes over whatever somebody else holds, and leaves the rest to the next
call. Lines, progress and the stream go with their tree; dead workers go when no task
names them any more.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cq.definition.status import TERMINAL, Status
from cq.models.queries import database
from cq.models.repeating import database_now
from cq.models.sql import Dialect
from cq.workflow.transaction import engine_transaction, repeated

logger = logging.getLogger("cq.retention")

BATCH = 500
DEAD_WORKER_TTL = timedelta(days=1)
LOCK_TIMEOUT_MS = 150


@dataclass(frozen=True, slots=True)
class Selection:
    """Which trees are to go: SQL over their root `t`, and what still holds a tree back."""

    roots: str
    holds: str
    params: dict[str, Any] = field(default_factory=dict)


def prune(limit: int = BATCH) -> int:
    """
    Delete up to about `limit` rows whose time is over, and return how many went.

    Fewer than `limit` means that nothing is left to do for now. Any number of workers may
    call it; each tree is deleted by one of them.
    """

    def work() -> int:
        with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
            expired = Selection(
                roots=f"t.result_expiry <= {db.now}",
                holds=f"(m.finished IS NULL OR m.result_expiry > {db.now})",
            )
            gone = _delete_trees(db, expired, limit)
            return gone + (_delete_workers(db, limit) if gone < limit else 0)

    return repeated(work)


def clear(statuses: Collection[Status], before: datetime, limit: int = BATCH) -> int:
    """
    Delete up to about `limit` rows of ended trees whose root was submitted before a moment.

    For people who do not want to wait for the expiry. A tree with a task that is not
    terminal stays.
    """

    def work() -> int:
        with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
            return _delete_trees(db, _ended(db, statuses, before), limit)

    return repeated(work)


def count_clearable(statuses: Collection[Status], before: datetime) -> int:
    """Count the trees that `clear` would delete."""
    with engine_transaction() as db:
        selection = _ended(db, statuses, before)
        sql = f"SELECT COUNT(*) FROM cq_task AS t WHERE {_condition(selection)}"
        return int(db.run(sql, selection.params)[0][0])


def clear_orphans(limit: int = BATCH) -> int:
    """
    Delete up to `limit` log lines, progress rows and streams that no tree owns any more.

    They remain when somebody deletes task rows by hand.
    """

    def work() -> int:
        with engine_transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as db:
            gone = 0
            for table, owner in (
                ("cq_logline", "root"),
                ("cq_progress", "task"),
                ("cq_stream", "root"),
            ):
                if gone < limit:
                    orphan = f"NOT EXISTS (SELECT 1 FROM cq_task AS t WHERE t.id = o.{owner})"
                    gone += _delete(db, table, orphan, {}, limit - gone)
            return gone

    return repeated(work)


def _ended(db: Dialect, statuses: Collection[Status], before: datetime) -> Selection:
    before_sql = "%(before)s::timestamptz" if db.is_postgres else "%(before)s"
    return Selection(
        roots=f"t.status {db.texts('statuses')} AND t.submitted < {before_sql}",
        holds="m.finished IS NULL",
        params={
            "statuses": db.text_list([status.value for status in statuses if status in TERMINAL]),
            "before": db.moment(before),
        },
    )


def _condition(selection: Selection) -> str:
    return (
        f"t.root_id IS NULL AND t.finished IS NOT NULL AND {selection.roots} AND NOT EXISTS "
        f"(SELECT 1 FROM cq_task AS m WHERE m.root_id = t.id AND {selection.holds})"
    )


def _delete_trees(db: Dialect, selection: Selection, limit: int) -> int:
    roots = _ids(
        db,
        f"SELECT t.id FROM cq_task AS t WHERE {_condition(selection)} "
        f"ORDER BY t.result_expiry LIMIT %(limit)s {db.skip_locked}",
        {**selection.params, "limit": limit},
    )
    if not roots:
        return 0
    # Children are taken from the bottom; one that somebody holds keeps its root in place.
    members = _ids(
        db,
        f"SELECT m.id FROM cq_task AS m WHERE m.root_id {db.ids('roots')} "
        f"ORDER BY m.depth DESC LIMIT %(limit)s {db.skip_locked}",
        {"roots": db.id_list(roots), "limit": limit},
    )
    # Whoever chained onto one of these rows held its lock; this look comes after ours.
    held = _ids(
        db,
        f"SELECT DISTINCT m.root_id FROM cq_task AS m WHERE m.root_id {db.ids('roots')} "
        f"AND {selection.holds}",
        {**selection.params, "roots": db.id_list(roots)},
    )
    return _delete_locked(db, sorted(set(roots) - set(held)), members, limit)


def _delete_locked(db: Dialect, roots: list[UUID], members: list[UUID], limit: int) -> int:
    """Delete lines first, then children, then what is left of the trees: at most 2 × limit."""
    params = {"roots": db.id_list(roots), "members": db.id_list(members)}
    gone = _delete(db, "cq_logline", f"o.root {db.ids('roots')}", params, limit)
    if gone >= limit:
        return gone
    of_roots = f"id {db.ids('members')} AND root_id {db.ids('roots')}"
    db.count(
        f"DELETE FROM cq_progress WHERE task IN (SELECT id FROM cq_task WHERE {of_roots})", params
    )
    gone += db.count(f"DELETE FROM cq_task WHERE {of_roots}", params)
    if gone >= limit:
        return gone
    over = (
        f"id {db.ids('roots')} AND NOT EXISTS "
        "(SELECT 1 FROM cq_task AS m WHERE m.root_id = cq_task.id)"
    )
    whole = f"IN (SELECT id FROM cq_task WHERE {over})"
    db.count(f"DELETE FROM cq_progress WHERE task {whole}", params)
    db.count(f"DELETE FROM cq_stream WHERE root {whole}", params)
    return gone + db.count(f"DELETE FROM cq_task WHERE {over}", params)


def _delete(db: Dialect, table: str, condition: str, params: dict[str, Any], limit: int) -> int:
    """Delete at most so many rows; by address, which needs no statistics to be quick."""
    address = "ctid" if db.is_postgres else "rowid"
    found = f"SELECT o.{address} FROM {table} AS o WHERE {condition} LIMIT %(most)s"
    inside = f"= ANY(ARRAY({found}))" if db.is_postgres else f"IN ({found})"
    return db.count(f"DELETE FROM {table} WHERE {address} {inside}", {**params, "most": limit})


def _delete_workers(db: Dialect, limit: int) -> int:
    """Delete workers that have been dead for a day and that no task refers to."""
    params = {"before": db.moment(database_now(database()) - DEAD_WORKER_TTL)}
    before = "%(before)s::timestamptz" if db.is_postgres else "%(before)s"
    unused = "NOT EXISTS (SELECT 1 FROM cq_task AS t WHERE t.worker_id = o.id)"
    condition = f"NOT o.alive AND o.beat_at < {before} AND {unused}"
    return _delete(db, "cq_worker", condition, params, limit)


def _ids(db: Dialect, sql: str, params: dict[str, Any]) -> list[UUID]:
    return [id for (value,) in db.run(sql, params) if (id := db.uuid(value)) is not None]

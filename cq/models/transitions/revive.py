"""
T3 by hand, T10, T17 and T19: a task that stood still becomes claimable.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

from cq.definition.status import Status
from cq.models.sql import Dialect
from cq.models.transitions.moved import (
    KEY_TAKEN,
    MOVED,
    PREDECESSOR_FAILED,
    Moved,
    after,
    moved,
)


def queue_pending(db: Dialect, id: UUID, args: str | None = None) -> list[Moved]:
    """T3: queue a task that was held by `submit=False`, with new arguments if given."""
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q', submitted = {db.now},
            args = COALESCE({db.json("%(args)s")}, t.args),
            run_at = CASE WHEN t.run_at < {db.now} THEN {db.now} ELSE t.run_at END
        WHERE t.id = %(id)s AND t.status = 'P' AND t.previous_id IS NULL
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"id": id.hex, "args": args}))


def put_back(db: Dialect, ids: Sequence[UUID], *, backoff: float) -> list[Moved]:
    """T10: queue tasks of a dead worker again, charged with a crash."""
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q', claim_token = NULL, worker_id = NULL,
            crashes = t.crashes + 1,
            run_at = {after(db, "(%(backoff)s * t.crashes)")},
            unique_key = CASE WHEN {KEY_TAKEN} THEN NULL ELSE t.unique_key END
        WHERE t.id {db.ids("ids")} AND t.status = 'R'
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"ids": db.id_list(ids), "backoff": backoff}))


def run_again(db: Dialect, ids: Sequence[UUID], sources: Iterable[Status]) -> list[Moved]:
    """T17 and T19: queue ended tasks with fresh budgets and a new generation."""
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q', run_at = {db.now}, generation = t.generation + 1,
            attempts = 0, retries = 0, crashes = 0, releases = 0, children_open = 0,
            children_failed = 0, waiting_on = NULL, started = NULL, finished = NULL,
            result = NULL, error = NULL, result_expiry = NULL, done_token = NULL
        WHERE t.id {db.ids("ids")} AND t.status {db.texts("sources")}
        {db.returning(MOVED)}
    """
    sources_list = db.text_list([source.value for source in sources])
    return moved(db, db.run(sql, {"ids": db.id_list(ids), "sources": sources_list}))


def hold_again(db: Dialect, previous: Sequence[UUID]) -> list[Moved]:
    """T17 and T19: hold the successors that were revoked when these tasks failed."""
    sql = f"""
        UPDATE cq_task AS t SET status = 'P', finished = NULL, error = NULL, result_expiry = NULL
        WHERE t.previous_id {db.ids("previous")} AND t.status = 'E' AND t.error = %(reason)s
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"previous": db.id_list(previous), "reason": PREDECESSOR_FAILED}))

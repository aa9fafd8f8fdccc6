"""
T3 by hand, T10, T17 and T19: a task that stood still becomes claimable.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from cq.definition.status import Status
from cq.models.sql import Dialect
from cq.models.transitions.moved import (
    MOVED,
    PREDECESSOR_FAILED,
    Moved,
    after,
    key_taken,
    moved,
)


def queue_pending(db: Dialect, id: UUID, args: str | None = None) -> list[Moved]:
    """
    T3: queue a task that was held by `submit=False`, with new arguments if given.

    It keeps its moment of submission if it has got children already: older ones than their
    parent's submission are history (`run_again`).
    """
    fresh = "t.children_open = 0 AND t.children_failed = 0"
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q',
            submitted = CASE WHEN {fresh} THEN {db.now} ELSE t.submitted END,
            args = COALESCE({db.json("%(args)s")}, t.args),
            run_at = CASE WHEN t.run_at < {db.now} THEN {db.now} ELSE t.run_at END
        WHERE t.id = %(id)s AND t.status = 'P' AND t.previous_id IS NULL
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"id": id.hex, "args": args}))


_IS_INNOCENT = "t.crashes > 0 AND t.releases < %(max_releases)s"


def put_back(db: Dialect, ids: Sequence[UUID], *, backoff: float, max_releases: int) -> list[Moved]:
    """
    T10: queue tasks of a dead worker again, charged with a crash.

    A suspect ran in a child process, which takes no worker along: its worker died of something
    else, and it is charged with a release, as long as it has one left.
    """
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q', claim_token = NULL, worker_id = NULL,
            crashes = t.crashes + CASE WHEN {_IS_INNOCENT} THEN 0 ELSE 1 END,
            releases = t.releases + CASE WHEN {_IS_INNOCENT} THEN 1 ELSE 0 END,
            run_at = {after(db, "(%(backoff)s * t.crashes)")},
            unique_key = CASE WHEN {key_taken(db, "ids")} THEN NULL ELSE t.unique_key END
        WHERE t.id {db.ids("ids")} AND t.status = 'R'
        {db.returning(MOVED)}
    """
    params = {"ids": db.id_list(ids), "backoff": backoff, "max_releases": max_releases}
    return moved(db, db.run(sql, params))


def run_again(db: Dialect, ids: Sequence[UUID], sources: Iterable[Status]) -> list[Moved]:
    """
    T17 and T19: queue ended tasks with fresh budgets and a new generation.

    Children that were submitted before this moment are history from now on. A unique key
    that another task has taken meanwhile is given up.
    """
    sql = f"""
        UPDATE cq_task AS t SET status = 'Q', generation = t.generation + 1,
            submitted = {db.now}, run_at = {db.now}, expires_at = NULL, attempts = 0,
            retries = 0, crashes = 0, releases = 0, children_open = 0, children_failed = 0,
            waiting_on = NULL, started = NULL, finished = NULL, result = NULL, error = NULL,
            result_expiry = NULL, done_token = NULL,
            unique_key = CASE WHEN {key_taken(db, "ids", revived=True)} THEN NULL
                         ELSE t.unique_key END
        WHERE t.id {db.ids("ids")} AND t.status {db.texts("sources")}
        {db.returning(MOVED)}
    """
    sources_list = db.text_list([source.value for source in sources])
    return moved(db, db.run(sql, {"ids": db.id_list(ids), "sources": sources_list}))


def hold_again(db: Dialect, ids: Sequence[UUID]) -> list[Moved]:
    """T17 and T19: hold those of the tasks that were revoked because their predecessor failed."""
    sql = f"""
        UPDATE cq_task AS t SET status = 'P', finished = NULL, error = NULL, result_expiry = NULL,
            unique_key = CASE WHEN {key_taken(db, "ids", revived=True)} THEN NULL
                         ELSE t.unique_key END
        WHERE t.id {db.ids("ids")} AND t.status = 'E' AND t.error = %(reason)s
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"ids": db.id_list(ids), "reason": PREDECESSOR_FAILED}))


def wait_again(db: Dialect, children: Mapping[UUID, int]) -> list[Moved]:
    """T19: Incomplete parents wait once more, each for so many children that failed before."""
    rows = [{"id": id.hex, "n": count} for id, count in children.items()]
    sql = f"""
        UPDATE cq_task AS t SET status = 'W', generation = t.generation + 1,
            children_open = v.n, children_failed = {db.not_negative("t.children_failed - v.n")},
            finished = NULL, error = NULL, result_expiry = NULL,
            unique_key = CASE WHEN {key_taken(db, "ids", revived=True)} THEN NULL
                         ELSE t.unique_key END
        FROM {db.recordset("v", {"id": "uuid", "n": "int"})}
        WHERE t.id = v.id AND t.id {db.ids("ids")} AND t.status = 'I'
        {db.returning(MOVED)}
    """
    return moved(db, db.run(sql, {"rows": json.dumps(rows), "ids": db.id_list(children)}))

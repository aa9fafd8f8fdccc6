"""
T5 to T11, T13, T14 and T16: an attempt ends, or a task is ended from outside.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from cq.definition.payload import JSON
from cq.definition.status import Status
from cq.models.sql import Dialect
from cq.models.transitions.moved import (
    MOVED,
    PREDECESSOR_FAILED,
    Moved,
    after,
    expiry,
    key_taken,
    moved,
)


@dataclass(slots=True, kw_only=True)
class Ending:
    """What the holder of a claim wants written: one of T5 to T9."""

    id: UUID
    token: UUID
    status: Status
    result: str | None = None
    stores_result: bool = True
    error: str | None = None
    failure: dict[str, JSON] | None = None
    delay: float | None = None
    children: int = 0
    waiting_on: UUID | None = None
    crashed: bool = False


_END = {
    "id": "uuid",
    "token": "uuid",
    "status": "text",
    "result": "text",
    "stores": "bool",
    "error": "text",
    "failure": "text",
    "run_at": "time",
    "delay": "float",
    "children": "int",
    "waiting_on": "uuid",
    "crashed": "bool",
}


# A body that returned ends its task only when no child is open: its own, adopted ones, and
# those that others added meanwhile.
_RETURNED = "(v.status IN ('S', 'W'))"
_TARGET = f"""(CASE WHEN NOT {_RETURNED} THEN v.status
    WHEN t.children_open + v.children > 0 THEN 'W'
    WHEN t.children_failed > 0 THEN 'I' ELSE 'S' END)"""
_FINAL = f"({_TARGET} IN ('S', 'F', 'I', 'L'))"
_RELEASED = "(v.status = 'Q' AND NOT v.crashed)"
_CHILD_ERROR = """(SELECT min(c.error) FROM cq_task AS c WHERE c.parent_id = t.id
    AND c.status IN ('F', 'I', 'L', 'E') AND c.error <> %(reason)s)"""


def end_attempts(
    db: Dialect, endings: Sequence[Ending], *, success_ttl: int, failure_ttl: int
) -> list[Moved]:
    """
    T5 to T11: write what attempts came to, where their claim tokens are still valid.

    A body that returned is Waiting while a child is open, also one that somebody else
    added; otherwise it ends at once. The results come back with the rows, also where the
    function stores none. Expects a transaction.
    """
    append = (
        "t.errors || v.failure::jsonb"
        if db.is_postgres
        else "json_insert(t.errors, '$[#]', json_extract(v.failure, '$[0]'))"
    )
    sql = f"""
        UPDATE cq_task AS t SET
            status = {_TARGET},
            claim_token = NULL, done_token = v.token, worker_id = NULL, parked = false,
            children_open = t.children_open + v.children,
            waiting_on = v.waiting_on,
            result = CASE WHEN v.stores OR {_TARGET} = 'W' THEN {db.json("v.result")} END,
            error = CASE WHEN {_RETURNED} AND t.children_failed > 0 THEN {_CHILD_ERROR}
                    ELSE v.error END,
            errors = CASE WHEN v.failure IS NULL THEN t.errors ELSE {append} END,
            retries = t.retries + CASE WHEN v.status = 'Y' THEN 1 ELSE 0 END,
            releases = t.releases + CASE WHEN {_RELEASED} THEN 1 ELSE 0 END,
            attempts = t.attempts - CASE WHEN {_RELEASED} THEN 1 ELSE 0 END,
            crashes = t.crashes + CASE WHEN v.crashed THEN 1 ELSE 0 END,
            run_at = CASE WHEN v.status = 'Y' THEN {db.later("v.run_at", "COALESCE(v.delay, 0)")}
                     ELSE t.run_at END,
            unique_key = CASE WHEN v.status IN ('Y', 'Q') AND {key_taken(db, "ids")} THEN NULL
                         ELSE t.unique_key END,
            finished = CASE WHEN {_FINAL} THEN {db.now} END,
            result_expiry = {expiry(db, _TARGET, _FINAL)}
        FROM {db.recordset("v", _END)}
        WHERE t.id = v.id AND t.id {db.ids("ids")} AND t.claim_token = v.token AND t.status = 'R'
        {db.returning(MOVED)}
    """
    params = {
        "rows": json.dumps([_row(db, ending) for ending in endings]),
        "ids": db.id_list(ending.id for ending in endings),
        "reason": PREDECESSOR_FAILED,
        "success_ttl": success_ttl,
        "failure_ttl": failure_ttl,
    }
    results = {ending.id: ending.result for ending in endings}
    return moved(db, db.run(sql, params), results)


def _row(db: Dialect, ending: Ending) -> dict[str, JSON]:
    # What is left out is NULL, and most endings have nothing but their names to tell.
    row: dict[str, JSON] = {
        "id": ending.id.hex,
        "token": ending.token.hex,
        "status": ending.status.value,
        "stores": ending.stores_result,
        "children": ending.children,
        "crashed": ending.crashed,
    }
    if ending.result is not None:
        row["result"] = ending.result
    if ending.error is not None:
        row["error"] = ending.error
    if ending.failure:
        row["failure"] = json.dumps([ending.failure])
    if ending.delay is not None:
        row |= {"delay": ending.delay, "run_at": db.fill_moment(None, ending.delay)}
    if ending.waiting_on is not None:
        row["waiting_on"] = ending.waiting_on.hex
    return row


def end_from(
    db: Dialect,
    ids: Sequence[UUID],
    sources: Iterable[Status],
    target: Status,
    *,
    error: str,
    failure_ttl: int,
) -> list[Moved]:
    """
    T11, T13, T14, T16: end rows that nobody can complete; their claim tokens are void.

    Rows in another status than `sources` by now are left alone.
    """
    sql = f"""
        UPDATE cq_task AS t SET status = %(target)s, claim_token = NULL, worker_id = NULL,
            parked = false, error = %(error)s, finished = {db.now},
            crashes = t.crashes + %(crash)s,
            result_expiry = {after(db, "COALESCE(t.result_ttl, %(failure_ttl)s)")}
        WHERE t.id {db.ids("ids")} AND t.status {db.texts("sources")}
        {db.returning(MOVED)}
    """
    params = {
        "ids": db.id_list(ids),
        "sources": db.text_list([source.value for source in sources]),
        "target": target.value,
        "crash": int(target is Status.LOST),
        "error": error,
        "failure_ttl": failure_ttl,
    }
    return moved(db, db.run(sql, params))

"""
T3, T12 and T15: what follows when a task has ended, for its parent and its successors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cq.definition.status import Status
from cq.models.sql import Dialect
from cq.models.transitions.moved import (
    MOVED,
    PREDECESSOR_FAILED,
    REVOKED_BY_HAND,
    Moved,
    after,
    expiry,
    moved,
)


@dataclass(frozen=True, slots=True)
class EndedChild:
    """A child that reached a terminal status, as its parent counts it."""

    id: UUID
    parent: UUID
    failed: bool = False
    error: str | None = None
    result: str | None = None
    count: int = 1
    """1 for a child that ended, -1 for one that came to be open in the same transaction."""


_ENDED = {
    "id": "uuid",
    "parent": "uuid",
    "failed": "int",
    "error": "text",
    "result": "text",
    "n": "int",
}


def _rows(children: Sequence[EndedChild]) -> str:
    rows = [
        {
            "id": child.id.hex,
            "parent": child.parent.hex,
            "failed": int(child.failed),
            "error": child.error,
            "result": child.result,
            "n": child.count,
        }
        for child in children
    ]
    return json.dumps(rows)


def settle_parents(
    db: Dialect, children: Sequence[EndedChild], *, success_ttl: int, failure_ttl: int
) -> list[Moved]:
    """
    T12: count ended children at their parents; a parent with none left open ends too.

    One UPDATE for all parents of one depth, so that two last children cannot both see
    the other still open. The rows are locked in the order of their ids. Returns the
    parents that ended.
    """
    params: dict[str, Any] = {
        "rows": _rows(children),
        "parents": db.id_list(sorted({child.parent for child in children})),
        "success_ttl": success_ttl,
        "failure_ttl": failure_ttl,
    }
    if db.is_postgres and len(children) > 1:
        db.run(
            f"SELECT 1 FROM cq_task WHERE id {db.ids('parents')} ORDER BY id FOR NO KEY UPDATE",
            params,
        )
    last = "(t.status = 'W' AND t.children_open <= v.n)"
    outcome = "CASE WHEN t.children_failed + v.failed > 0 THEN 'I' ELSE 'S' END"
    sql = f"""
        WITH child AS (SELECT * FROM {db.recordset("c", _ENDED)}),
        v AS (SELECT parent, sum(n) AS n, sum(failed) AS failed, min(error) AS error
              FROM child GROUP BY parent)
        UPDATE cq_task AS t SET
            status = CASE WHEN {last} THEN {outcome} ELSE t.status END,
            children_open = {db.not_negative("t.children_open - v.n")},
            children_failed = t.children_failed + v.failed,
            error = CASE WHEN t.status = 'W' AND v.failed > 0 THEN COALESCE(t.error, v.error)
                    ELSE t.error END,
            result = CASE WHEN t.status = 'W' THEN COALESCE((SELECT {db.json("child.result")}
                     FROM child WHERE child.id = t.waiting_on), t.result) ELSE t.result END,
            finished = CASE WHEN {last} THEN {db.now} ELSE t.finished END,
            result_expiry = CASE WHEN {last} THEN {expiry(db, outcome, "true")}
                            ELSE t.result_expiry END
        FROM v WHERE t.id = v.parent AND t.id {db.ids("parents")}
        {db.returning(f"{MOVED}, t.result, {_just_ended(db)}")}
    """
    return moved(db, (row[:10] for row in db.run(sql, params) if row[10]))


def forget_results(db: Dialect, ids: Sequence[UUID]) -> None:
    """Empty the results of ended tasks whose functions store none."""
    if ids:
        db.count(
            f"UPDATE cq_task SET result = NULL WHERE id {db.ids('ids')}", {"ids": db.id_list(ids)}
        )


def _just_ended(db: Dialect) -> str:
    # A parent that a person revoked keeps its status while its children still count down;
    # only one that this statement ended has this very moment in `finished`.
    return f"t.status IN ('S', 'I') AND t.children_open = 0 AND t.finished = {db.now}"


_PREDECESSOR = {"id": "uuid", "ok": "bool", "revoked": "bool", "result": "text"}


def release_successors(db: Dialect, ended: Sequence[Moved], *, failure_ttl: int) -> list[Moved]:
    """
    T3 and T15: queue what waited for these tasks, or revoke it if they ended badly.

    `force_chain` successors run after any end but a revoke by a person. The result is
    written into the successor, so it survives a predecessor that stores none.
    """
    rows = [
        {
            "id": row.id.hex,
            "ok": row.status is Status.SUCCESS,
            "revoked": row.status is Status.REVOKED and row.error == REVOKED_BY_HAND,
            "result": row.result if row.status is Status.SUCCESS else None,
        }
        for row in ended
    ]
    runs = "(v.ok OR (t.force_chain AND NOT v.revoked))"
    sql = f"""
        UPDATE cq_task AS t SET
            status = CASE WHEN {runs} THEN 'Q' ELSE 'E' END,
            previous_result = CASE WHEN {runs} THEN {db.json("v.result")} END,
            run_at = CASE WHEN {runs} AND t.run_at < {db.now} THEN {db.now} ELSE t.run_at END,
            error = CASE WHEN {runs} THEN NULL WHEN v.revoked THEN %(by_hand)s
                    ELSE %(reason)s END,
            finished = CASE WHEN {runs} THEN NULL ELSE {db.now} END,
            result_expiry = CASE WHEN {runs} THEN NULL ELSE {after(db, "%(failure_ttl)s")} END
        FROM {db.recordset("v", _PREDECESSOR)}
        WHERE t.id {db.linked("previous_id", "previous")} AND t.previous_id = v.id
            AND t.status = 'P'
        {db.returning(MOVED)}
    """
    params = {
        "rows": json.dumps(rows),
        "previous": db.id_list(row.id for row in ended),
        "reason": PREDECESSOR_FAILED,
        "by_hand": REVOKED_BY_HAND,
        "failure_ttl": failure_ttl,
    }
    return moved(db, db.run(sql, params))

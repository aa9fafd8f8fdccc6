"""
T1 and T2: a task comes into being.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cq.definition.signature import NewTask
from cq.models.sql import Dialect


@dataclass(frozen=True, slots=True)
class Inserted:
    """A row that now exists."""

    id: UUID
    queue: str
    submitted: datetime
    run_at: datetime
    is_due: bool
    expires_at: datetime | None = None


_INSERT = {
    "id": "uuid",
    "func_name": "text",
    "args": "text",
    "kwargs": "text",
    "status": "text",
    "queue": "text",
    "priority": "int",
    "run_at": "time",
    "delay": "float",
    "expires_at": "time",
    "expires_in": "float",
    "parent": "uuid",
    "root": "uuid",
    "previous": "uuid",
    "depth": "int",
    "previous_result": "text",
    "pass_result": "bool",
    "force_chain": "bool",
    "max_retries": "int",
    "timeout": "float",
    "at_most_once": "bool",
    "result_ttl": "int",
    "unique_key": "text",
    "unique_running": "bool",
    "errorbacks": "text",
    "owner": "text",
    "repeating": "int",
    "tick": "time",
    "missed": "int",
}


def insert(db: Dialect, tasks: Sequence[NewTask]) -> list[Inserted]:
    """
    T1 and T2: insert rows in one statement, all or none.

    A row with a unique key or a tick that is taken is left out instead of failing; the
    caller sees that it did not come back.
    """
    if len(tasks) == 1 and _is_plain(tasks[0]):
        return [_insert_plain(db, tasks[0])]
    rows = [_insert_row(db, task) for task in tasks]
    guarded = any(task.unique_key or task.tick for task in tasks)
    now, due = db.now, db.later("v.run_at", "COALESCE(v.delay, 0)")
    if not db.is_postgres:
        due = f"COALESCE(v.run_at, {now})"
    expires = db.later("v.expires_at", "v.expires_in")
    sql = f"""
        INSERT INTO cq_task AS t (id, func_name, args, kwargs, status, queue, priority, run_at,
            expires_at, parent_id, root_id, previous_id, depth, previous_result, pass_result,
            force_chain, max_retries, timeout, at_most_once, result_ttl, unique_key,
            unique_running, errorbacks, owner, repeating_id, tick, missed, submitted)
        SELECT v.id, v.func_name, {db.json("v.args")}, {db.json("v.kwargs")}, v.status, v.queue,
            COALESCE(v.priority, 0), {due}, {expires}, v.parent, v.root, v.previous,
            COALESCE(v.depth, 0), {db.json("v.previous_result")},
            COALESCE(v.pass_result, false), COALESCE(v.force_chain, false), v.max_retries,
            v.timeout, COALESCE(v.at_most_once, false), v.result_ttl, v.unique_key,
            COALESCE(v.unique_running, false), {db.json("COALESCE(v.errorbacks, '[]')")}, v.owner,
            v.repeating, v.tick, COALESCE(v.missed, 0), {now}
        FROM {db.recordset("v", _INSERT)} WHERE true
        {"ON CONFLICT DO NOTHING" if guarded else ""}
        RETURNING id, queue, {db.text("submitted")}, {db.text("run_at")}, run_at <= {now},
            {db.text("expires_at")}
    """
    return [
        Inserted(
            id=db.uuid(id),  # type: ignore[arg-type]
            queue=queue,
            submitted=db.time(submitted),  # type: ignore[arg-type]
            run_at=db.time(run_at),  # type: ignore[arg-type]
            is_due=bool(is_due),
            expires_at=db.time(expires_at),
        )
        for id, queue, submitted, run_at, is_due, expires_at in db.run(
            sql, {"rows": json.dumps(rows)}
        )
    ]


_PLAIN = ("queue", "priority", "max_retries", "timeout", "at_most_once", "result_ttl", "owner")
_SPECIAL = ("run_at", "delay", "expires_at", "expires_in", "parent", "root", "previous")


def _is_plain(task: NewTask) -> bool:
    """Whether a row differs from the table's defaults in plain columns only."""
    if task.unique_key or task.tick or task.errorbacks or task.pass_result or task.force_chain:
        return False
    return all(getattr(task, name) is None for name in _SPECIAL)


def _insert_plain(db: Dialect, task: NewTask) -> Inserted:
    # The usual delay(): naming only what differs from the defaults halves its cost.
    values: dict[str, Any] = {
        "id": task.id.hex,
        "func_name": task.func_name,
        "args": task.args,
        "kwargs": task.kwargs,
        "status": task.status.value,
    }
    for name in _PLAIN:
        value = getattr(task, name)
        if value is not None and value is not False:
            values[name] = value
    columns, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    sql = f"INSERT INTO cq_task ({columns}) VALUES ({places}) RETURNING submitted, run_at"
    submitted, run_at = db.run(sql, values)[0]
    return Inserted(task.id, task.queue, db.time(submitted), db.time(run_at), True)  # type: ignore[arg-type]


def _insert_row(db: Dialect, task: NewTask) -> dict[str, Any]:
    # What is left out is NULL, for which the statement puts the column's default.
    row: dict[str, Any] = {
        "id": task.id.hex,
        "func_name": task.func_name,
        "args": task.args,
        "kwargs": task.kwargs,
        "status": task.status.value,
        "queue": task.queue,
    }
    for name in _AS_THEY_ARE:
        if value := getattr(task, name):
            row[name] = value
    if not all(getattr(task, name) is None for name in _TURNED):
        row |= _turned(db, task)
    return row


_AS_THEY_ARE = (
    *("priority", "depth", "pass_result", "force_chain", "at_most_once", "unique_running"),
    *("missed", "unique_key", "previous_result", "repeating"),
)
_TURNED = (
    *("run_at", "delay", "expires_at", "expires_in", "parent", "root", "previous"),
    *("max_retries", "timeout", "result_ttl", "errorbacks", "owner", "tick"),
)


def _turned(db: Dialect, task: NewTask) -> dict[str, Any]:
    values = {
        "run_at": db.fill_moment(task.run_at, task.delay),
        "delay": task.delay,
        "expires_at": db.fill_moment(task.expires_at, task.expires_in),
        "expires_in": task.expires_in,
        "parent": task.parent and task.parent.hex,
        "root": task.root and task.root.hex,
        "previous": task.previous and task.previous.hex,
        "max_retries": task.max_retries,
        "timeout": task.timeout,
        "result_ttl": task.result_ttl,
        "errorbacks": None if task.errorbacks is None else json.dumps(task.errorbacks),
        "owner": task.owner,
        "tick": db.moment(task.tick),
    }
    return {name: value for name, value in values.items() if value is not None}

"""
T4: a worker takes due tasks, as many as it has room for, in one statement.

The order is queue, priority, due time, id. On PostgreSQL the statement walks the few
(queue, priority) pairs that have rows, one index probe each, and then reads due rows of
each pair in index order: its cost does not grow with the backlog, with far-future rows
of a high priority, or without statistics (measured shapes in docs/performance.md).
Rows that somebody else is moving are passed over.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from cq.models.sql import Dialect, Row


@dataclass(frozen=True, slots=True)
class Want:
    """Room for so many tasks of these names."""

    names: tuple[str, ...]
    limit: int


@dataclass(slots=True)
class Claimed:
    """A task this process may run, and the token that proves it."""

    id: UUID
    token: UUID
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    root: UUID
    parent: UUID | None
    previous: UUID | None
    previous_result: Any
    pass_result: bool
    depth: int
    attempt: int
    retries: int
    crashes: int
    releases: int
    max_retries: int | None
    timeout: float | None
    queue: str
    is_root: bool


_RETURNING = (
    "t.id, t.claim_token, t.func_name, t.args, t.kwargs, t.root_id, t.parent_id, t.previous_id, "
    "t.previous_result, t.pass_result, t.depth, t.attempts, t.retries, t.crashes, t.releases, "
    "t.max_retries, t.timeout, t.queue, t.priority, t.run_at"
)

ABOVE_ALL = 32767

_DUE = "t.status IN ('Q', 'Y') AND NOT t.parked"
_DUE_SQLITE = f"{_DUE} AND t.parked = 0"  # in both spellings: see Dialect.fails

# The whole predicate of the due index here would make the planner read that index instead
# of the primary key, and every due row with it (7 ms for 100 of 14,000 rows).
_TAKEN = """
    UPDATE cq_task AS t SET status = 'R', claim_token = {token}, worker_id = %(worker)s,
        attempts = t.attempts + 1, started = {now}
    WHERE {chosen} AND t.status IN ('Q', 'Y')
    {returning}
"""

_NAMED_QUEUES = "SELECT * FROM unnest(%(queues)s::text[]) WITH ORDINALITY"

# Every queue that has rows, by the same kind of index walk; all of one rank.
_ALL_QUEUES = f"""
    SELECT w.queue, 1::bigint FROM (
        WITH RECURSIVE walk(queue) AS (
            (SELECT t.queue FROM cq_task t WHERE {_DUE} ORDER BY t.queue LIMIT 1)
            UNION ALL
            SELECT n.queue FROM walk CROSS JOIN LATERAL (
                SELECT t.queue FROM cq_task t WHERE {_DUE} AND t.queue > walk.queue
                ORDER BY t.queue LIMIT 1) n
        ) SELECT queue FROM walk) w
"""

# The few (queue, priority) pairs that have rows, one index probe each.
_PAIRS = f"""
    q(queue, rank) AS ({{queues}}), pair(queue, rank, priority) AS (
        SELECT q.queue, q.rank, f.priority FROM q CROSS JOIN LATERAL (
            SELECT t.priority FROM cq_task t WHERE {_DUE} AND t.queue = q.queue
            ORDER BY t.queue, t.priority DESC LIMIT 1) f
        UNION ALL
        SELECT p.queue, p.rank, f.priority FROM pair p CROSS JOIN LATERAL (
            SELECT t.priority FROM cq_task t WHERE {_DUE} AND t.queue = p.queue
            AND t.priority < p.priority ORDER BY t.queue, t.priority DESC LIMIT 1) f
    )
"""

# Due rows for one want, in the order of their urgency, up to its limit. Queues of one rank
# take turns at random, so that the backlog of one starves no other.
_DUE_POSTGRES = f"""
    due{{number}} AS (
        SELECT d.id FROM (SELECT * FROM pair ORDER BY rank, priority DESC, random()) p
        CROSS JOIN LATERAL (
            SELECT t.id FROM cq_task t WHERE {_DUE} AND t.queue = p.queue
            AND t.priority = p.priority AND t.run_at <= statement_timestamp()
            AND t.func_name = ANY(%(names{{number}})s)
            AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
            ORDER BY t.queue, t.priority DESC, t.run_at, t.id LIMIT %(limit{{number}})s
            FOR UPDATE SKIP LOCKED) d
        WHERE EXISTS (SELECT 1 FROM me)
        LIMIT %(limit{{number}})s
    )
"""

_ME_POSTGRES = """
    me AS MATERIALIZED (
        SELECT id FROM cq_worker WHERE id = %(worker)s AND alive FOR KEY SHARE
    )
"""


@cache
def _claim_sql(wants: int, all_queues: bool) -> str:
    numbers = range(wants)
    parts = [
        _ME_POSTGRES,
        _PAIRS.replace("{queues}", _ALL_QUEUES if all_queues else _NAMED_QUEUES),
        *(_DUE_POSTGRES.format(number=number) for number in numbers),
    ]
    ids = " UNION ALL ".join(f"SELECT id FROM due{number}" for number in numbers)
    taken = _TAKEN.format(
        token="gen_random_uuid()",
        now="statement_timestamp()",
        returning=f"RETURNING {_RETURNING}",
        chosen=f"t.id = ANY(ARRAY({ids}))",
    )
    return f"WITH RECURSIVE {', '.join(parts)} {taken}"


_NEXT_POSTGRES = f"""
    WITH RECURSIVE {_PAIRS}
    SELECT EXTRACT(EPOCH FROM min(d.run_at) - statement_timestamp())::float FROM pair p
    CROSS JOIN LATERAL (
        SELECT t.run_at FROM cq_task t WHERE {_DUE} AND t.queue = p.queue
        AND t.priority = p.priority AND t.run_at > statement_timestamp()
        ORDER BY t.queue, t.priority DESC, t.run_at, t.id LIMIT 1) d
"""

_PARK_POSTGRES = f"""
    WITH RECURSIVE {_PAIRS}, head AS (
        SELECT d.id FROM pair p CROSS JOIN LATERAL (
            SELECT t.id, t.func_name FROM cq_task t WHERE {_DUE} AND t.queue = p.queue
            AND t.priority = p.priority
            ORDER BY t.queue, t.priority DESC, t.run_at, t.id LIMIT %(depth)s) d
        WHERE NOT (d.func_name = ANY(%(names)s::text[]))
    ), free AS (
        SELECT t.id FROM cq_task t WHERE t.id = ANY(ARRAY(SELECT id FROM head)) AND {_DUE}
        FOR UPDATE SKIP LOCKED
    )
    UPDATE cq_task SET parked = true WHERE id = ANY(ARRAY(SELECT id FROM free))
"""


def claim(
    db: Dialect, worker: UUID, wants: Sequence[Want], queues: Sequence[str] | None = None
) -> list[Claimed]:
    """
    Move due rows to Running, as many as each want has room for, and return them in order.

    Takes nothing at all once the worker's own row is no longer alive. With `queues` None
    every queue is served. Expects autocommit on PostgreSQL, and a transaction begun with
    IMMEDIATE on SQLite.
    """
    if not wants:
        return []
    if db.is_postgres:
        rows = _claim_postgres(db, worker, wants, queues)
    else:
        rows = _claim_portable(db, worker, wants, queues)
    return _in_order(db, rows, queues)


def next_due(db: Dialect, queues: Sequence[str] | None = None) -> float | datetime | None:
    """When the next future row is due: in seconds where the vendor can say so, or at."""
    if db.is_postgres:
        sql = _NEXT_POSTGRES.replace("{queues}", _ALL_QUEUES if queues is None else _NAMED_QUEUES)
        found = db.run(sql, {"queues": list(queues)} if queues is not None else {})[0][0]
        return None if found is None else float(found)
    sql = f"""SELECT t.run_at FROM cq_task AS t WHERE {_DUE_SQLITE} AND t.queue = %(queue)s
        AND t.priority = %(priority)s AND t.run_at > {db.now} ORDER BY t.run_at LIMIT 1"""
    pairs = [{"queue": queue, "priority": priority} for queue, priority in _pairs(db, queues)]
    moments = [db.time(row[0]) for pair in pairs for row in db.run(sql, pair)]
    return min((moment for moment in moments if moment is not None), default=None)


def claim_named(
    db: Dialect,
    worker: UUID,
    ids: Sequence[UUID],
    want: Want,
    queues: Sequence[str] | None = None,
) -> list[Claimed]:
    """
    Take those of the given rows that are due and wanted, the most urgent first.

    For whoever knows ids, from bells; it costs one probe for each, however many rows wait.
    """
    among = "" if queues is None else f"AND t.queue {db.texts('queues')}"
    # Not the due index's own condition: the planner would walk that index (see _TAKEN).
    chosen = f"""SELECT t.id FROM cq_task AS t WHERE t.id {db.ids("ids")}
        AND t.status IN ('Q', 'Y') AND t.parked IS NOT TRUE AND t.func_name {db.texts("names")}
        AND t.run_at <= {db.now} AND (t.expires_at IS NULL OR t.expires_at > {db.now}) {among}
        ORDER BY t.priority DESC, t.run_at, t.id LIMIT %(limit)s {db.skip_locked}"""
    me = "SELECT id FROM cq_worker WHERE id = %(worker)s AND alive"
    alive = f"EXISTS ({'SELECT 1 FROM me' if db.is_postgres else me})"
    sql = _TAKEN.format(
        token="gen_random_uuid()" if db.is_postgres else "lower(hex(randomblob(16)))",
        now=db.now,
        returning=db.returning(_RETURNING),
        chosen=f"t.id {db.among(chosen)} AND {alive}",
    )
    params = {
        "ids": db.id_list(ids),
        "worker": worker.hex,
        "names": db.text_list(want.names),
        "limit": want.limit,
    }
    if queues is not None:
        params["queues"] = db.text_list(list(queues))
    if db.is_postgres:
        sql = f"WITH me AS MATERIALIZED ({me} FOR KEY SHARE) {sql}"
    return _in_order(db, db.run(sql, params), queues)


def park_heads(db: Dialect, names: Sequence[str], depth: int) -> int:
    """
    Take rows of other names than these out of the claim's index; return how many.

    Looks at the first `depth` rows of each (queue, priority) pair only, those that a
    claim would read first, so that its cost is bounded. Call it until it returns 0.
    """
    params: dict[str, Any] = {"names": db.text_list(names), "depth": depth}
    if db.is_postgres:
        return db.count(_PARK_POSTGRES.replace("{queues}", _ALL_QUEUES), params)
    return db.count(
        f"""UPDATE cq_task SET parked = true WHERE id IN (
            SELECT t.id FROM cq_task AS t WHERE {_DUE_SQLITE} AND NOT (t.func_name
            {db.texts("names")}) LIMIT %(depth)s)""",
        params,
    )


def unpark(db: Dialect, names: Sequence[str], limit: int) -> int:
    """Bring back parked rows of these names."""
    return db.count(
        f"""UPDATE cq_task SET parked = false WHERE id IN (
            SELECT t.id FROM cq_task AS t WHERE {db.holds("t.parked")}
            AND t.func_name {db.texts("names")} LIMIT %(limit)s {db.skip_locked})""",
        {"names": db.text_list(names), "limit": limit},
    )


def _in_order(db: Dialect, rows: list[Row], queues: Sequence[str] | None) -> list[Claimed]:
    ranks = {queue: rank for rank, queue in enumerate(queues)} if queues is not None else {}
    rows.sort(key=lambda row: (ranks.get(row[17], 0), -row[18], row[19], str(row[0])))
    return [_claimed(db, row) for row in rows]


def _claim_postgres(
    db: Dialect, worker: UUID, wants: Sequence[Want], queues: Sequence[str] | None
) -> list[Row]:
    params: dict[str, Any] = {"worker": worker.hex}
    for number, want in enumerate(wants):
        params[f"names{number}"] = list(want.names)
        params[f"limit{number}"] = want.limit
    if queues is not None:
        params["queues"] = list(queues)
    return db.run(_claim_sql(len(wants), queues is None), params)


def _claim_portable(
    db: Dialect, worker: UUID, wants: Sequence[Want], queues: Sequence[str] | None
) -> list[Row]:
    alive = db.run(
        "SELECT 1 FROM cq_worker WHERE id = %(worker)s AND alive", {"worker": worker.hex}
    )
    if not alive:
        return []
    pairs = _pairs(db, queues)
    ids = [id for want in wants for id in _due_ids(db, want, pairs)]
    if not ids:
        return []
    sql = _TAKEN.format(
        token="lower(hex(randomblob(16)))",
        now=db.now,
        returning=db.returning(_RETURNING),
        chosen="t.id IN (SELECT value FROM json_each(%(ids)s))",
    )
    return db.run(sql, {"ids": json.dumps(ids), "worker": worker.hex})


def _pairs(db: Dialect, queues: Sequence[str] | None) -> list[tuple[str, int]]:
    names = _queues(db) if queues is None else queues
    pairs = [(queue, priority) for queue in names for priority in _priorities(db, queue)]
    if queues is None:
        random.shuffle(pairs)
        pairs.sort(key=lambda pair: -pair[1])
    return pairs


def _queues(db: Dialect) -> Iterator[str]:
    """The queues that have rows, one index probe each."""
    sql = f"SELECT t.queue FROM cq_task AS t WHERE {_DUE_SQLITE} AND t.queue > %(last)s"
    last = ""
    while rows := db.run(f"{sql} ORDER BY t.queue LIMIT 1", {"last": last}):
        last = rows[0][0]
        yield last


def _priorities(db: Dialect, queue: str) -> Iterator[int]:
    """Likewise the priorities that have rows in a queue, highest first."""
    sql = f"""SELECT t.priority FROM cq_task AS t WHERE {_DUE_SQLITE} AND t.queue = %(queue)s
        AND t.priority < %(last)s ORDER BY t.priority DESC LIMIT 1"""
    last = ABOVE_ALL
    while rows := db.run(sql, {"queue": queue, "last": last}):
        last = rows[0][0]
        yield last


def _due_ids(db: Dialect, want: Want, pairs: Sequence[tuple[str, int]]) -> list[str]:
    ids: list[str] = []
    for queue, priority in pairs:
        if len(ids) >= want.limit:
            break
        found = db.run(
            f"""SELECT t.id FROM cq_task AS t WHERE {_DUE_SQLITE} AND t.queue = %(queue)s
            AND t.priority = %(priority)s AND t.run_at <= {db.now}
            AND t.func_name {db.texts("names")}
            AND (t.expires_at IS NULL OR t.expires_at > {db.now})
            ORDER BY t.run_at, t.id LIMIT %(limit)s""",
            {
                "queue": queue,
                "priority": priority,
                "names": db.text_list(want.names),
                "limit": want.limit - len(ids),
            },
        )
        ids += [row[0] if isinstance(row[0], str) else row[0].hex for row in found]
    return ids


def _claimed(db: Dialect, row: Row) -> Claimed:
    id = db.uuid(row[0])
    root = db.uuid(row[5])
    previous_result = row[8]
    return Claimed(
        id=id,  # type: ignore[arg-type]
        token=db.uuid(row[1]),  # type: ignore[arg-type]
        func_name=row[2],
        args=json.loads(row[3]),
        kwargs=json.loads(row[4]),
        root=root or id,  # type: ignore[arg-type]
        parent=db.uuid(row[6]),
        previous=db.uuid(row[7]),
        previous_result=None if previous_result is None else json.loads(previous_result),
        pass_result=bool(row[9]),
        depth=row[10],
        attempt=row[11],
        retries=row[12],
        crashes=row[13],
        releases=row[14],
        max_retries=row[15],
        timeout=row[16],
        queue=row[17],
        is_root=root is None,
    )

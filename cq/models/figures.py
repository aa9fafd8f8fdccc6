"""
The numbers that people look at: queues, workers, what runs, what needs attention.

Plain functions of a dialect return frozen dataclasses; pages and terminal commands read the
same ones. No function reads more than CAP rows of a kind, so each costs the same however
large the table is, and none needs statistics to find its index.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cq.models.minutes import MinuteRow
from cq.models.sql import Dialect, Row

CAP = 10_000
"""Nothing is counted further than this; a number above it means "10,000 or more"."""

RATE_MINUTES = 5
DEAD_SHOWN = 20
RUNNING_SHOWN = 2_000
SAMPLED = 1_000

_DUE = "t.status IN ('Q', 'Y') AND NOT t.parked"
ASIDE = "('P', 'W', 'F', 'I', 'L', 'E')"
"""The statuses of the index cq_task_aside, which no task passes on its way to Success."""


_BY_INDEX = """SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true)"""


def look(db: Dialect, sql: str, params: dict[str, Any] | None = None) -> list[Row]:
    """
    Run a question of a person by an index, and uncompiled.

    On a large table, or one without statistics, PostgreSQL would rather read and sort all of
    it, and spend longer on compiling a statement than on carrying it out.

    The engine's own sessions (cq/models/sessions.py) are set so already.
    """
    if db.is_postgres and "jit=off" not in str(db.connection.settings_dict.get("OPTIONS")):
        db.first(_BY_INDEX)
    return db.run(sql, params)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigure:
    """One queue: what is due in it, and how fast it is served."""

    name: str
    depth: int
    later: int
    oldest: datetime | None
    done_per_minute: float
    failed_per_minute: float
    workers: int

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until it is empty, if nothing came in; None if it does not move."""
        if not self.depth:
            return 0.0
        return self.depth / self.done_per_minute * 60 if self.done_per_minute else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTask:
    """A task in a slot."""

    id: UUID
    func_name: str
    queue: str
    started: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigure:
    """One worker process; `age` is the seconds since its last heartbeat."""

    id: UUID
    hostname: str
    pid: int
    state: str
    is_alive: bool
    started: datetime
    beat_at: datetime
    age: float
    slots: int
    queues: tuple[str, ...] | None
    running: tuple[RunningTask, ...]

    @property
    def name(self) -> str:
        """What people call it: host and process id."""
        return f"{self.hostname}:{self.pid}"

    def serves(self, queue: str) -> bool:
        """Whether it takes tasks of this queue."""
        return self.queues is None or queue in self.queues


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from due to started, of the tasks that started last."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Parked:
    """A name that no live worker registers, and how many tasks wait for one."""

    func_name: str
    count: int


_QUEUES = f"""
    WITH RECURSIVE walk(queue) AS (
        SELECT MIN(t.queue) FROM cq_task AS t WHERE {{due}}
        UNION ALL
        SELECT (SELECT MIN(t.queue) FROM cq_task AS t WHERE {{due}} AND t.queue > walk.queue)
        FROM walk WHERE walk.queue IS NOT NULL
    ), pair(queue, priority) AS (
        SELECT walk.queue, (SELECT MAX(t.priority) FROM cq_task AS t
            WHERE {{due}} AND t.queue = walk.queue) FROM walk WHERE walk.queue IS NOT NULL
        UNION ALL
        SELECT pair.queue, (SELECT MAX(t.priority) FROM cq_task AS t
            WHERE {{due}} AND t.queue = pair.queue AND t.priority < pair.priority)
        FROM pair WHERE pair.priority IS NOT NULL
    )
    SELECT pair.queue,
        (SELECT COUNT(*) FROM (SELECT 1 FROM cq_task AS t WHERE {{due}} AND t.queue = pair.queue
            AND t.priority = pair.priority AND t.run_at <= {{now}}
            ORDER BY t.queue, t.priority DESC, t.run_at LIMIT {CAP + 1}) AS a),
        (SELECT COUNT(*) FROM (SELECT 1 FROM cq_task AS t WHERE {{due}} AND t.queue = pair.queue
            AND t.priority = pair.priority AND t.run_at > {{now}}
            ORDER BY t.queue, t.priority DESC, t.run_at LIMIT {CAP + 1}) AS b),
        (SELECT t.run_at FROM cq_task AS t WHERE {{due}} AND t.queue = pair.queue
            AND t.priority = pair.priority
            ORDER BY t.queue, t.priority DESC, t.run_at LIMIT 1)
    FROM pair WHERE pair.priority IS NOT NULL
"""


def queues(
    db: Dialect, workers: list[WorkerFigure], recent: list[MinuteRow], now: datetime
) -> list[QueueFigure]:
    """
    Every queue that holds claimable tasks, was served lately or is named by a live worker.

    `recent` are tallies that reach back RATE_MINUTES at least; `now` is the moment by the
    database's clock. Counts stop at CAP + 1 for each priority of a queue.
    """
    due = _DUE if db.is_postgres else f"{_DUE} AND t.parked = 0"
    depths: dict[str, list[Any]] = {}
    for name, depth, later, oldest in look(db, _QUEUES.format(due=due, now=db.now)):
        found = depths.setdefault(name, [0, 0, None])
        found[0] = min(found[0] + depth, CAP + 1)
        found[1] = min(found[1] + later, CAP + 1)
        first = db.time(oldest)
        if depth and first and (found[2] is None or first < found[2]):
            found[2] = first
    live = [worker for worker in workers if worker.is_alive]
    named = {name for worker in live for name in worker.queues or ()}
    names = depths.keys() | named | {row.queue for row in recent}
    return [
        QueueFigure(
            name=name,
            depth=depths.get(name, [0])[0],
            later=depths.get(name, [0, 0])[1],
            oldest=depths.get(name, [0, 0, None])[2],
            done_per_minute=per_minute(recent, now, queue=name),
            failed_per_minute=per_minute(recent, now, queue=name, failed=True),
            workers=sum(worker.serves(name) for worker in live),
        )
        for name in sorted(names)
    ]


def per_minute(
    recent: list[MinuteRow],
    now: datetime,
    *,
    queue: str | None = None,
    failed: bool = False,
    minutes: int = RATE_MINUTES,
) -> float:
    """The rate over the current, partial minute and the whole ones before it."""
    current = int(now.timestamp() // 60)
    elapsed = 60 * (minutes - 1) + now.timestamp() % 60
    total = sum(
        row.failed if failed else row.done
        for row in recent
        if row.minute > current - minutes and (queue is None or row.queue == queue)
    )
    return total * 60 / max(elapsed, 1)


def workers(db: Dialect) -> list[WorkerFigure]:
    """Live workers with what they run, then those that died or stopped within a day."""
    day = f"{db.now} - interval '1 day'" if db.is_postgres else f"datetime({db.now}, '-1 day')"
    rows = look(
        db,
        f"""SELECT * FROM (
            SELECT w.id, w.hostname, w.pid, w.state, w.alive, w.started, w.beat_at, w.slots,
                w.queues, {_age(db)} FROM cq_worker AS w WHERE w.alive) AS a
        UNION ALL SELECT * FROM (
            SELECT w.id, w.hostname, w.pid, w.state, w.alive, w.started, w.beat_at, w.slots,
                w.queues, {_age(db)} FROM cq_worker AS w WHERE NOT w.alive AND w.beat_at > {day}
            ORDER BY w.beat_at DESC LIMIT {DEAD_SHOWN}) AS b""",
    )
    tasks = _running(db, [db.uuid(row[0]) for row in rows if row[4]])
    figures = [_worker(db, row, tasks) for row in rows]
    return sorted(figures, key=lambda w: (not w.is_alive, w.hostname, w.started))


def _age(db: Dialect) -> str:
    if db.is_postgres:
        return "EXTRACT(EPOCH FROM statement_timestamp() - w.beat_at)::float8"
    return f"(julianday({db.now}) - julianday(w.beat_at)) * 86400.0"


def _worker(
    db: Dialect, row: tuple[Any, ...], tasks: dict[UUID, list[RunningTask]]
) -> WorkerFigure:
    id: UUID = db.uuid(row[0])  # type: ignore[assignment]
    listens = json.loads(row[8]) if isinstance(row[8], str) else row[8]
    return WorkerFigure(
        id=id,
        hostname=row[1],
        pid=row[2],
        state=row[3],
        is_alive=bool(row[4]),
        started=db.time(row[5]),  # type: ignore[arg-type]
        beat_at=db.time(row[6]),  # type: ignore[arg-type]
        age=max(float(row[9] or 0), 0.0),
        slots=row[7],
        queues=None if listens is None else tuple(listens),
        running=tuple(tasks.get(id, ())),
    )


def _running(db: Dialect, ids: list[UUID | None]) -> dict[UUID, list[RunningTask]]:
    if not ids:
        return {}
    rows = look(
        db,
        f"""SELECT t.worker_id, t.id, t.func_name, t.queue, t.started FROM cq_task AS t
        WHERE t.id {db.linked("worker_id", "ids")} ORDER BY t.started, t.id
        LIMIT {RUNNING_SHOWN}""",
        {"ids": db.id_list(id for id in ids if id)},
    )
    found: dict[UUID, list[RunningTask]] = {}
    for worker, id, name, queue, started in rows:
        task = RunningTask(
            id=db.uuid(id),  # type: ignore[arg-type]
            func_name=name,
            queue=queue,
            started=db.time(started),  # type: ignore[arg-type]
        )
        found.setdefault(db.uuid(worker), []).append(task)  # type: ignore[arg-type]
    return found


def latency(db: Dialect) -> Latency:
    """
    How late tasks start: of what runs now and of the newest SAMPLED rows that have started.

    What runs is there so that a backlog shows: its newest rows have not started yet.
    """
    seconds = (
        "EXTRACT(EPOCH FROM t.started - t.run_at)::float8"
        if db.is_postgres
        else "(julianday(t.started) - julianday(t.run_at)) * 86400.0"
    )
    hour = f"{db.now} - interval '1 hour'" if db.is_postgres else f"datetime({db.now}, '-1 hour')"
    rows = look(
        db,
        f"""SELECT {seconds} FROM (
            SELECT * FROM (SELECT n.started, n.run_at FROM cq_task AS n
                ORDER BY n.id DESC LIMIT {SAMPLED}) AS newest
            UNION ALL
            SELECT * FROM (SELECT r.started, r.run_at FROM cq_task AS r
                WHERE r.worker_id IS NOT NULL LIMIT {SAMPLED}) AS running
        ) AS t WHERE t.started >= t.run_at AND t.started > {hour}""",
    )
    values = sorted(float(row[0]) for row in rows)
    if not values:
        return Latency(None, None)
    return Latency(values[len(values) // 2], values[min(len(values) * 95 // 100, len(values) - 1)])


def parked(db: Dialect) -> list[Parked]:
    """Names of tasks that no live worker registers, the most frequent first."""
    rows = look(
        db,
        f"""SELECT p.func_name, COUNT(*) FROM (SELECT t.func_name FROM cq_task AS t
            WHERE {db.holds("t.parked")} ORDER BY t.func_name LIMIT {CAP + 1}) AS p
        GROUP BY p.func_name ORDER BY 2 DESC, 1 LIMIT 20""",
    )
    return [Parked(name, count) for name, count in rows]


def lost_lately(db: Dialect) -> int:
    """How many tasks were lost within a day, among the newest SAMPLED lost ones."""
    day = f"{db.now} - interval '1 day'" if db.is_postgres else f"datetime({db.now}, '-1 day')"
    rows = look(
        db,
        f"""SELECT COUNT(*) FROM (SELECT t.finished FROM cq_task AS t
            WHERE t.status = 'L' AND t.status IN {ASIDE}
            ORDER BY t.id DESC LIMIT {SAMPLED}) AS l WHERE l.finished > {day}""",
    )
    return int(rows[0][0])


def moment(db: Dialect) -> datetime:
    """The database's clock."""
    found: datetime = db.time(db.run(f"SELECT {db.now}")[0][0])  # type: ignore[assignment]
    return found

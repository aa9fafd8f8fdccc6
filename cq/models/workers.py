"""
Reads and writes of worker rows, and of the tasks that dead workers left behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cq.models.sql import Dialect, database
from cq.models.worker import Worker


@dataclass(frozen=True, slots=True)
class Beat:
    """What an observer sees of a live worker."""

    id: UUID
    beat: int
    identity: dict[str, Any]


def enlist(worker: Worker) -> None:
    """Insert the row of a starting worker."""
    worker.save(using=database(), force_insert=True)


def beat(db: Dialect, worker: UUID, state: str) -> bool:
    """Prove that the worker is alive; False if it was declared dead meanwhile."""
    return (
        db.count(
            f"UPDATE cq_worker SET beat = beat + 1, beat_at = {db.now}, state = %(state)s "
            "WHERE id = %(id)s AND alive",
            {"id": worker.hex, "state": state},
        )
        == 1
    )


def retire(db: Dialect, worker: UUID) -> None:
    """Mark a worker that has ended by itself as gone."""
    db.count(
        "UPDATE cq_worker SET alive = false, state = 'stopped' WHERE id = %(id)s",
        {"id": worker.hex},
    )


def live(db: Dialect) -> list[Beat]:
    """Every worker that counts as alive, with its latest beat."""
    rows = db.run(
        "SELECT id, beat, hostname, host_id, boot_id, pid_namespace, pid, pid_started "
        "FROM cq_worker WHERE alive"
    )
    fields = ("hostname", "host_id", "boot_id", "pid_namespace", "pid", "pid_started")
    return [
        Beat(db.uuid(row[0]), row[1], dict(zip(fields, row[2:], strict=True)))  # type: ignore[arg-type]
        for row in rows
    ]


def void_tokens(db: Dialect, held: Sequence[tuple[UUID, UUID]]) -> list[UUID]:
    """The tokens among those held by a worker that are no longer valid."""
    if not held:
        return []
    valid = db.run(
        f"SELECT t.claim_token FROM cq_task AS t WHERE t.id {db.ids('ids')} "
        "AND t.claim_token IS NOT NULL",
        {"ids": db.id_list([id for id, _ in held])},
    )
    still = {db.uuid(row[0]) for row in valid}
    return [token for _, token in held if token not in still]


def declare_dead(db: Dialect, worker: UUID, beat: int) -> bool:
    """
    Mark a worker as dead if its beat is still the observed one.

    The explicit lock conflicts with the one every claim takes on its worker's row, so no
    claim can commit after this one has.
    """
    found = db.run(
        f"SELECT 1 FROM cq_worker WHERE id = %(id)s AND alive AND beat = %(beat)s {db.for_update}",
        {"id": worker.hex, "beat": beat},
    )
    if not found:
        return False
    db.count(
        "UPDATE cq_worker SET alive = false, state = 'dead' WHERE id = %(id)s", {"id": worker.hex}
    )
    return True


def orphans(
    db: Dialect,
    limit: int,
    *,
    max_crashes: int,
    max_releases: int,
    spent: bool,
    ids: Sequence[UUID] | None = None,
) -> list[UUID]:
    """
    Lock running tasks of dead workers that nobody else is moving, any or among `ids`.

    `spent` asks for those that may not run again, the opposite for those that may. A suspect,
    which ran in a child process, may as long as it has a release left.
    """
    dead = db.run("SELECT w.id FROM cq_worker AS w WHERE NOT w.alive")
    if not dead:
        return []
    return _found(
        db,
        f"""cq_task AS t WHERE t.id {db.linked("worker_id", "dead")} AND t.status = 'R'
        AND {"" if spent else "NOT"} (t.at_most_once OR (t.crashes + 1 >= %(max_crashes)s
        AND (t.crashes = 0 OR t.releases >= %(max_releases)s)))""",
        {
            "max_crashes": max_crashes,
            "max_releases": max_releases,
            "dead": db.id_list(UUID(str(row[0])) for row in dead),
        },
        limit,
        ids,
        db.skip_locked,
    )


def expired(db: Dialect, limit: int, *, ids: Sequence[UUID] | None = None) -> list[UUID]:
    """Likewise claimable tasks whose time to start is over."""
    # The first to expire, by the order of their index, and only then by the clock: without
    # statistics the planner would read the whole table.
    first = db.among(
        f"""SELECT f.id FROM (SELECT n.id, n.expires_at FROM cq_task AS n
        WHERE n.expires_at IS NOT NULL AND n.status IN ('Q', 'Y')
        ORDER BY n.expires_at LIMIT %(limit)s) AS f WHERE f.expires_at <= {db.now}"""
    )
    condition = f"cq_task AS t WHERE t.id {first} AND t.status IN ('Q', 'Y')"
    return _found(db, condition, {}, limit, ids, db.skip_locked)


def unroutable(
    db: Dialect, limit: int, *, seconds: float, ids: Sequence[UUID] | None = None
) -> list[UUID]:
    """Likewise parked tasks that have been due for longer than that."""
    age = f"{db.now} - %(seconds)s * interval '1 second'"
    if not db.is_postgres:
        age = f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {db.now}, '-' || %(seconds)s || ' seconds')"
    condition = f"cq_task AS t WHERE {db.holds('t.parked')} AND t.run_at <= {age}"
    return _found(db, condition, {"seconds": seconds}, limit, ids, db.skip_locked)


def _found(
    db: Dialect,
    condition: str,
    params: dict[str, Any],
    limit: int,
    ids: Sequence[UUID] | None,
    lock: str,
) -> list[UUID]:
    among = "" if ids is None else f"AND t.id {db.ids('ids')}"
    rows = db.run(
        f"SELECT t.id FROM {condition} {among} LIMIT %(limit)s {lock}",
        {**params, "limit": limit, "ids": db.id_list(ids or ())},
    )
    return [db.uuid(row[0]) for row in rows]  # type: ignore[misc]


def registered_names(db: Dialect) -> set[str]:
    """Every name that some live worker can run."""
    rows = Worker.objects.using(database()).filter(alive=True).values_list("names", flat=True)
    return {name for names in rows for name in names}


def serves(db: Dialect, queue: str, func_name: str) -> bool:
    """Whether a live worker takes tasks of this name from this queue."""
    rows = Worker.objects.using(database()).filter(alive=True).values_list("queues", "names")
    return any((queues is None or queue in queues) and func_name in names for queues, names in rows)

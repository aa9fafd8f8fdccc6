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


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running task whose worker is dead."""

    id: UUID
    crashes: int
    at_most_once: bool

    def is_spent(self, max_crashes: int) -> bool:
        """Whether the task may not run again."""
        return self.at_most_once or self.crashes + 1 >= max_crashes


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


def orphans(db: Dialect, limit: int) -> list[Orphan]:
    """Lock running tasks of dead workers that nobody else is moving."""
    lock = "FOR UPDATE OF t SKIP LOCKED" if db.is_postgres else ""
    rows = db.run(
        f"""SELECT t.id, t.crashes, t.at_most_once FROM cq_worker AS w
        JOIN cq_task AS t ON t.worker_id = w.id
        WHERE NOT w.alive AND t.worker_id IS NOT NULL AND t.status = 'R'
        LIMIT %(limit)s {lock}""",
        {"limit": limit},
    )
    return [Orphan(db.uuid(row[0]), row[1], bool(row[2])) for row in rows]  # type: ignore[arg-type]


def expired(db: Dialect, limit: int) -> list[UUID]:
    """Claimable tasks whose time to start is over."""
    rows = db.run(
        f"SELECT t.id FROM cq_task AS t WHERE t.expires_at <= {db.now} "
        "AND t.status IN ('Q', 'Y') LIMIT %(limit)s",
        {"limit": limit},
    )
    return [db.uuid(row[0]) for row in rows]  # type: ignore[misc]


def unroutable(db: Dialect, limit: int, seconds: float) -> list[UUID]:
    """Parked tasks that have been due for longer than that."""
    age = f"{db.now} - %(seconds)s * interval '1 second'"
    if not db.is_postgres:
        age = f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {db.now}, '-' || %(seconds)s || ' seconds')"
    rows = db.run(
        f"SELECT t.id FROM cq_task AS t WHERE t.parked AND t.run_at <= {age} LIMIT %(limit)s",
        {"limit": limit, "seconds": seconds},
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

"""
The ledger: triggers on the tasks' table that write down every transition.

`ledger()` installs them for one test and takes them away; what they wrote is read as `Entry` rows,
in the order in which they were written. Nothing of cq knows of it, so it also sees what an
engine would rather not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from cq.definition.status import TRANSITIONS, Status

ON_POSTGRES = """
CREATE TABLE test_ledger (
    n bigserial PRIMARY KEY, task uuid NOT NULL, parent uuid, previous uuid,
    func_name text NOT NULL, old text, new text, attempt int,
    at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION test_note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO test_ledger (task, func_name, old) VALUES (OLD.id, OLD.func_name, OLD.status);
    ELSIF TG_OP = 'INSERT' OR OLD.status IS DISTINCT FROM NEW.status THEN
        INSERT INTO test_ledger (task, parent, previous, func_name, old, new, attempt) VALUES (
            NEW.id, NEW.parent_id, NEW.previous_id, NEW.func_name,
            CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status, NEW.attempts
        );
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER test_ledger AFTER INSERT OR UPDATE OR DELETE ON cq_task
FOR EACH ROW EXECUTE FUNCTION test_note_transition();
"""
OFF_POSTGRES = """
DROP TRIGGER IF EXISTS test_ledger ON cq_task;
DROP FUNCTION IF EXISTS test_note_transition();
DROP TABLE IF EXISTS test_ledger;
"""
ON_SQLITE = """
CREATE TABLE test_ledger (
    n integer PRIMARY KEY AUTOINCREMENT, task text NOT NULL, parent text, previous text,
    func_name text NOT NULL, old text, new text, attempt int,
    at text DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE TRIGGER test_ledger_insert AFTER INSERT ON cq_task BEGIN
    INSERT INTO test_ledger (task, parent, previous, func_name, new, attempt) VALUES (
        NEW.id, NEW.parent_id, NEW.previous_id, NEW.func_name, NEW.status, NEW.attempts
    );
END;
CREATE TRIGGER test_ledger_update AFTER UPDATE ON cq_task
WHEN OLD.status IS NOT NEW.status BEGIN
    INSERT INTO test_ledger (task, parent, previous, func_name, old, new, attempt) VALUES (
        NEW.id, NEW.parent_id, NEW.previous_id, NEW.func_name,
        OLD.status, NEW.status, NEW.attempts
    );
END;
CREATE TRIGGER test_ledger_delete AFTER DELETE ON cq_task BEGIN
    INSERT INTO test_ledger (task, func_name, old) VALUES (OLD.id, OLD.func_name, OLD.status);
END;
"""
OFF_SQLITE = """
DROP TRIGGER IF EXISTS test_ledger_insert;
DROP TRIGGER IF EXISTS test_ledger_update;
DROP TRIGGER IF EXISTS test_ledger_delete;
DROP TABLE IF EXISTS test_ledger;
"""
ARROWS = {
    (source, target)
    for arrow in TRANSITIONS
    for source in arrow.sources or {None}
    for target in arrow.targets or {None}
} | {
    # What T19 and T17 do beside: ancestors wait once more, links are held once more.
    (Status.INCOMPLETE, Status.WAITING),
    (Status.REVOKED, Status.PENDING),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition; `old` is None at an insert, `new` at a deletion."""

    number: int
    task: UUID
    parent: UUID | None
    previous: UUID | None
    func_name: str
    old: Status | None
    new: Status | None
    attempt: int | None

    def __str__(self) -> str:
        names = [status.name if status else "nothing" for status in (self.old, self.new)]
        return f"{self.func_name} {self.task} went from {names[0]} to {names[1]}"


@contextmanager
def ledger() -> Iterator[None]:
    """Keep the ledger while the block runs."""
    _run(OFF_POSTGRES + ON_POSTGRES, OFF_SQLITE + ON_SQLITE)
    try:
        yield
    finally:
        _run(OFF_POSTGRES, OFF_SQLITE)


def _run(on_postgres: str, on_sqlite: str) -> None:
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(on_postgres)
    else:
        connection.connection.executescript(on_sqlite)


def entries() -> list[Entry]:
    """Everything written so far."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n, task, parent, previous, func_name, old, new, attempt FROM test_ledger "
            "ORDER BY n"
        )
        return [
            Entry(
                n,
                *(_id(one) for one in row[:3]),  # type: ignore[arg-type]
                row[3],
                *(Status(one) if one else None for one in row[4:6]),
                row[6],
            )
            for n, *row in cursor.fetchall()
        ]


def _id(value: UUID | str | None) -> UUID | None:
    return UUID(value) if isinstance(value, str) else value

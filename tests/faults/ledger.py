"""
The ledger: a trigger on the tasks' table that writes down every transition (PostgreSQL).

`ledger()` installs it for one test and takes it away; what it wrote is read as `Entry` rows,
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

INSTALL = """
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
REMOVE = """
DROP TRIGGER IF EXISTS test_ledger ON cq_task;
DROP FUNCTION IF EXISTS test_note_transition();
DROP TABLE IF EXISTS test_ledger;
"""
ARROWS = {
    (source, target)
    for arrow in TRANSITIONS
    for source in arrow.sources or {None}
    for target in arrow.targets or {None}
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
    with connection.cursor() as cursor:
        cursor.execute(REMOVE + INSTALL)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(REMOVE)


def entries() -> list[Entry]:
    """Everything written so far."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n, task, parent, previous, func_name, old, new, attempt FROM test_ledger "
            "ORDER BY n"
        )
        return [
            Entry(n, *row[:4], *(Status(one) if one else None for one in row[4:6]), row[6])
            for n, *row in cursor.fetchall()
        ]

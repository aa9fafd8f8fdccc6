"""The last runs of repeating tasks, each found by the index of its ticks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cq.definition.status import Status
from cq.models.figures import look
from cq.models.sql import Dialect

RUNS_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Run:
    """One run that a tick made."""

    id: UUID
    status: Status
    tick: datetime
    seconds: float | None
    """How long it took; None while it has not ended, or if it never started."""


def last_runs(db: Dialect, entries: Sequence[int]) -> dict[int, list[Run]]:
    """The newest RUNS_SHOWN scheduled runs of these entries, oldest first; one query."""
    if not entries:
        return {}
    columns = "t.repeating_id, t.id, t.status, t.tick, t.started, t.finished"
    newest = f"""SELECT {{columns}} FROM cq_task AS t WHERE t.repeating_id = e.value
        AND t.tick IS NOT NULL ORDER BY t.tick DESC LIMIT {RUNS_SHOWN}"""
    if db.is_postgres:
        lateral = newest.format(columns=columns)
        source = f"""FROM (SELECT x::bigint AS value FROM json_array_elements_text(
            %(entries)s::json) AS x) AS e CROSS JOIN LATERAL ({lateral}) AS t"""
    else:
        source = f"""FROM json_each(%(entries)s) AS e CROSS JOIN cq_task AS t
            ON t.id IN ({newest.format(columns="t.id")})"""
    rows = look(
        db, f"SELECT {columns} {source} ORDER BY t.tick", {"entries": json.dumps(list(entries))}
    )
    found: dict[int, list[Run]] = {}
    for entry, id, status, tick, started, finished in rows:
        begun, ended = db.time(started), db.time(finished)
        seconds = (ended - begun).total_seconds() if begun and ended else None
        run = Run(db.uuid(id), Status(status), db.time(tick), seconds)  # type: ignore[arg-type]
        found.setdefault(entry, []).append(run)
    return found

"""
The two dialects of the engine's SQL, PostgreSQL and SQLite.

The engine writes set-wise statements: many rows travel as one JSON parameter, which
`recordset` spreads into a table the statement can join. The texts in `transitions.py`
and `queries.py` are the same for both vendors but for the few words defined here.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from cq.errors import InvalidSettings

ClientCursor: Any = None
ServerCursor: Any = None
with suppress(ImportError):  # a project on SQLite needs no driver
    from psycopg import ClientCursor
    from psycopg import Cursor as ServerCursor

Row = tuple[Any, ...]
VENDORS = ("postgresql", "sqlite")
_TYPES = {"uuid": "uuid", "text": "text", "int": "integer", "float": "double precision"}
_TYPES |= {"bool": "boolean", "time": "timestamptz", "bigint": "bigint"}


class Dialect:
    """The words in which a vendor differs."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.is_postgres = connection.vendor == "postgresql"
        self._prelude: list[str] = []
        if connection.vendor not in VENDORS:
            raise InvalidSettings(
                f"The tasks are routed to a {connection.vendor!r} database. cq runs on "
                "PostgreSQL and on SQLite; route the app 'cq' to one of them."
            )

    def first(self, statement: str) -> None:
        """
        Send a statement that returns nothing, in one round trip with the next one.

        Before a prepared statement it takes a round trip of its own.
        """
        self._prelude.append(statement)

    @property
    def now(self) -> str:
        """The database's clock; on SQLite the parameter that `run` binds in Django's format."""
        return "statement_timestamp()" if self.is_postgres else "%(now)s"

    @property
    def skip_locked(self) -> str:
        """Pass over rows that somebody else is moving (SQLite has one writer)."""
        return "FOR UPDATE SKIP LOCKED" if self.is_postgres else ""

    @property
    def for_update(self) -> str:
        """Lock what is read until the transaction ends."""
        return "FOR UPDATE" if self.is_postgres else ""

    def text(self, moment: str) -> str:
        """A moment as the text that `time` reads; many rows of a statement have the same."""
        return f"{moment}::text" if self.is_postgres else moment

    def json(self, column: str) -> str:
        """Turn a JSON text into the column type."""
        return f"{column}::jsonb" if self.is_postgres else column

    def recordset(self, alias: str, columns: dict[str, str]) -> str:
        """The rows of the parameter `rows` as a table `alias` with typed columns."""
        if self.is_postgres:
            typed = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in columns.items())
            return f"json_to_recordset(%(rows)s::json) AS {alias}({typed})"
        picked = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
        return f"(SELECT {picked} FROM json_each(%(rows)s)) AS {alias}"

    def returning(self, columns: str, alias: str = "t") -> str:
        """A RETURNING clause; SQLite knows no aliases there, PostgreSQL needs them."""
        if not self.is_postgres:
            columns = re.sub(rf"\b{alias}\.", "", columns)
        return f"RETURNING {columns}"

    def later(self, moment: str, seconds: str) -> str:
        """The moment `seconds` after `now`, unless the column `moment` names one."""
        if self.is_postgres:
            return f"COALESCE({moment}, statement_timestamp() + {seconds} * interval '1 second')"
        return moment

    def ids(self, parameter: str) -> str:
        """The parameter, a list of ids made by `id_list`, as something to be `IN`."""
        if self.is_postgres:
            return f"= ANY(%({parameter})s::uuid[])"
        return f"IN (SELECT value FROM json_each(%({parameter})s))"

    def holds(self, column: str) -> str:
        """
        The boolean column is true, in each spelling that an index may have as its condition.

        SQLite compares the texts of conditions, and Django 6.1 writes `= 1` into an index where
        5.2 wrote the bare name. A table keeps the spelling of the release that made it.
        """
        return column if self.is_postgres else f"{column} AND {column} = 1"

    def fails(self, column: str) -> str:
        """Likewise, the boolean column is false."""
        return f"NOT {column}" if self.is_postgres else f"NOT {column} AND {column} = 0"

    def not_negative(self, number: str) -> str:
        """The number, or 0 if it is below."""
        return f"GREATEST({number}, 0)" if self.is_postgres else f"max({number}, 0)"

    def among(self, query: str) -> str:
        """The ids that a query yields, as something to be `IN`; on PostgreSQL found first."""
        return f"= ANY(ARRAY({query}))" if self.is_postgres else f"IN ({query})"

    def listed(self, parameter: str) -> str:
        """The parameter, a list of ids made by `id_list`, as a table `k(id)`."""
        if self.is_postgres:
            return f"unnest(%({parameter})s::uuid[]) AS k(id)"
        return f"(SELECT value AS id FROM json_each(%({parameter})s)) AS k"

    def linked(self, column: str, parameter: str) -> str:
        """
        The tasks whose `column` names one of the parameter's ids, as something to be `IN`.

        One index probe for each, walled off from the planner, which without statistics
        would read the whole table instead (47 ms with 420,000 rows, at every completion).
        """
        if self.is_postgres:
            return self.among(
                f"SELECT l.id FROM unnest(%({parameter})s::uuid[]) AS k(id) CROSS JOIN LATERAL "
                f"(SELECT n.id FROM cq_task AS n WHERE n.{column} = k.id OFFSET 0) AS l"
            )
        return self.among(
            f"SELECT n.id FROM json_each(%({parameter})s) AS k "
            f"CROSS JOIN cq_task AS n ON n.{column} = k.value"
        )

    def texts(self, parameter: str) -> str:
        """Likewise for texts."""
        if self.is_postgres:
            return f"= ANY(%({parameter})s::text[])"
        return f"IN (SELECT value FROM json_each(%({parameter})s))"

    def id_list(self, ids: Iterable[UUID]) -> Any:
        """The parameter behind `ids`."""
        listed = [item.hex for item in ids]
        return listed if self.is_postgres else json.dumps(listed)

    def text_list(self, texts: Sequence[str]) -> Any:
        """The parameter behind `texts`."""
        return list(texts) if self.is_postgres else json.dumps(list(texts))

    def moment(self, value: datetime | None) -> str | None:
        """A moment as a parameter that compares with what the columns hold."""
        if value is None:
            return None
        if self.is_postgres:
            return value.isoformat()
        zone = UTC if self.connection.timezone is None else self.connection.timezone
        return str(value.astimezone(zone).replace(tzinfo=None))

    def fill_moment(self, moment: datetime | None, seconds: float | None) -> str | None:
        """The absolute moment of a row, where the vendor cannot add seconds to its clock."""
        if moment is None and seconds is not None and not self.is_postgres:
            moment = timezone.now() + timedelta(seconds=seconds)
        return self.moment(moment)

    def run(self, sql: str, params: dict[str, Any] | None = None) -> list[Row]:
        """Execute a statement and fetch what it returns."""
        with self._cursor() as cursor:
            self._execute(cursor, sql, params or {})
            return cursor.fetchall() if cursor.description else []

    def count(self, sql: str, params: dict[str, Any] | None = None) -> int:
        """Execute a statement and say how many rows it touched."""
        with self._cursor() as cursor:
            self._execute(cursor, sql, params or {})
            touched: int = cursor.rowcount
            return touched

    def _cursor(self) -> Any:
        """Django's cursor; on a session that allows it, one whose statements are prepared."""
        connection = self.connection
        connection.close_if_health_check_failed()
        connection.ensure_connection()
        raw = connection.connection
        allowed = getattr(raw, "prepare_threshold", None) is not None
        if ServerCursor is None or not allowed or connection.queries_logged:
            # Of a prepared statement nothing could be logged but its name.
            return connection.cursor()
        return connection.make_cursor(ServerCursor(raw))

    def _execute(self, cursor: Any, sql: str, values: dict[str, Any]) -> None:
        if not self.is_postgres and "%(now)s" in sql and "now" not in values:
            values = {**values, "now": self.moment(timezone.now())}
        if not self._prelude:
            cursor.execute(sql, values)
            return
        prelude, self._prelude = self._prelude, []
        if not _binds_on_server(cursor):
            cursor.execute("; ".join([*prelude, sql]), values)
            for _ in prelude:
                cursor.nextset()
            return
        with self.connection.cursor() as plain:
            together = prelude if _binds_on_server(plain) else ["; ".join(prelude)]
            for statement in together:
                plain.execute(statement)
        cursor.execute(sql, values)

    def uuid(self, value: Any) -> UUID | None:
        """An id as it came from the driver."""
        return value if value is None or isinstance(value, UUID) else UUID(value)

    def time(self, value: Any) -> datetime | None:
        """A moment as it came from the driver."""
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else _read(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@lru_cache(maxsize=64)
def _read(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment


def _binds_on_server(cursor: Any) -> bool:
    # Such a cursor takes one statement at a time.
    if ServerCursor is None or isinstance(cursor.cursor, ClientCursor):
        return False
    return isinstance(cursor.cursor, ServerCursor)


def database() -> str:
    """The alias of the database that holds the tasks."""
    return router.db_for_write(apps.get_model("cq", "Task")) or DEFAULT_DB_ALIAS


def dialect() -> Dialect:
    """The dialect of the calling thread's connection to the task table."""
    return Dialect(connections[database()])

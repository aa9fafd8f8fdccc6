"""
Database defaults that Django has no expression for.

They make a row inserted by plain SQL a proper task: a random id where none is given,
empty arguments, each in the dialect of the database at hand.
"""

from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Func, JSONField, UUIDField

from cq.definition.ids import uuid7


def new_id() -> UUID:
    """A fresh id of version 7: rows that are made together lie together in the index."""
    return uuid7()


class RandomUUID(Func):
    """A random version 4 id made by the database."""

    template = "GEN_RANDOM_UUID()"
    arity = 0
    output_field = UUIDField()

    def as_sqlite(
        self, compiler: Any, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, Any]:
        """Sixteen random bytes as Django stores a UUID on SQLite, 32 hex digits."""
        return self.as_sql(compiler, connection, template="lower(hex(randomblob(16)))", **context)


class EmptyArray(Func):
    """The JSON value `[]`."""

    template = "'[]'"
    arity = 0
    output_field = JSONField()


class EmptyObject(Func):
    """The JSON value `{}`."""

    template = "'{}'"
    arity = 0
    output_field = JSONField()

"""What payload lets through, a real database takes and gives back as it was."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cq.definition.payload import check_json, clean_text, describe_exception, dumps

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=15
)
ANY_TEXT = st.text(st.characters())
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[Any]:
    url = postgres_url.replace("postgres://", "postgresql://", 1)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def typed(value: Any) -> Any:
    """A value whose equality tells 1 from 1.0 and from True, and ignores the order of keys."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


@given(value=VALUES)
@QUICK
def test_json_survives_postgresql(postgres: Any, value: Any) -> None:
    copy = check_json(value, "args")
    stored = postgres.execute("SELECT (%s::jsonb)::text", [dumps(copy)]).fetchone()[0]
    assert typed(json.loads(stored)) == typed(copy)


@given(value=VALUES)
@QUICK
def test_json_survives_sqlite(sqlite: sqlite3.Connection, value: Any) -> None:
    copy = check_json(value, "args")
    query = "SELECT JSON_VALID(:column), :column"
    valid, stored = sqlite.execute(query, {"column": dumps(copy)}).fetchone()
    assert valid
    assert typed(json.loads(stored)) == typed(copy)


@pytest.mark.parametrize("number", [1e16, -1e22, 1e23, 1.7976931348623157e308, 5e-324, 1e-300])
def test_extreme_floats_stay_floats(postgres: Any, number: float) -> None:
    stored = postgres.execute("SELECT (%s::jsonb)::text", [dumps(number)]).fetchone()[0]
    assert typed(json.loads(stored)) == typed(number)


@given(text=ANY_TEXT)
@QUICK
def test_any_text_is_stored_once_clean(
    postgres: Any, sqlite: sqlite3.Connection, text: str
) -> None:
    for clean in (clean_text(text, 1_000), *describe_exception(ValueError(text), 1_000).values()):
        assert postgres.execute("SELECT %s::text", [clean]).fetchone() == (clean,)
        assert sqlite.execute("SELECT ?", [clean]).fetchone() == (clean,)


def test_the_deepest_value_can_be_read_back(postgres: Any) -> None:
    value: Any = []
    for _ in range(63):
        value = [value]
    stored = postgres.execute(
        "SELECT (%s::jsonb)::text", [dumps(check_json(value, "args"))]
    ).fetchone()[0]
    assert json.loads(stored) == value

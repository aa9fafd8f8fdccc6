"""The engine works at READ COMMITTED, whatever level the project gives its connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from tests.conformance.connections import together
from tests.conformance.driving import Hand, S, fresh, on_postgres, status
from tests.conformance.forest import Forest, counters_as_the_rows_say
from tests.sampleapp.tasks import echo, noop

pytestmark = on_postgres


@pytest.fixture(params=["REPEATABLE_READ", "SERIALIZABLE"])
def level(request: pytest.FixtureRequest, database: object) -> Iterator[None]:
    """The project's isolation level, for every connection of the test."""
    from psycopg import IsolationLevel

    options = connection.settings_dict["OPTIONS"]
    connections.close_all()
    options["isolation_level"] = IsolationLevel[request.param]
    yield
    connections.close_all()
    del options["isolation_level"]


def shown() -> str:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return str(cursor.fetchone()[0])


@pytest.mark.usefixtures("level")
def test_many_hands_never_see_a_serialization_failure(caplog: Any) -> None:
    assert shown() != "read committed"
    forests = [Forest(number) for number in range(4)]
    with caplog.at_level(logging.DEBUG, logger="cq.workflow"):
        answers = together([lambda forest=forest: forest.hurry(40) for forest in forests])
    for problem in filter(None, answers):
        raise problem
    assert "could not serialize" not in caplog.text
    for forest in forests:
        forest.settle_own()
    forests[0].settle()
    counters_as_the_rows_say()


@pytest.mark.usefixtures("level")
def test_a_callers_transaction_keeps_its_own_level(hand: Hand) -> None:
    with transaction.atomic():
        task = noop.delay()
        link = task.chain(echo, 1)
        assert shown() != "read committed"
    hand.run(task, lambda cqt: 41)
    assert fresh(link).previous_result == 41
    assert hand.run(link) is S
    assert status(task) is S

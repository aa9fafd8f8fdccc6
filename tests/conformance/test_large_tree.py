"""A tree of ten thousand children: no statement of its whole life is a long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from cq.definition.outcome import Succeeded
from cq.models import Task
from cq.models.sessions import own_sessions
from cq.workflow.completion import complete
from tests.conformance.driving import Hand, S, fresh, on_postgres
from tests.sampleapp.tasks import noop

CHILDREN = 10_000
LONGEST_SECONDS = 0.2


class Stopwatch:
    """The statement that took longest on this connection, and how long it took."""

    def __init__(self) -> None:
        self.seconds, self.statement = 0.0, ""

    def __call__(self, execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        before = time.perf_counter()
        try:
            return execute(sql, *rest)
        finally:
            seconds = time.perf_counter() - before
            if seconds > self.seconds:
                self.seconds, self.statement = seconds, " ".join(sql.split())[:200]


@on_postgres
@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_no_statement_of_a_tree_of_ten_thousand_takes_long(
    database: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On the engine's own kind of session, with prepared statements.
    connection.close()
    monkeypatch.setattr(connection, "settings_dict", connection.settings_dict)
    own_sessions()
    hand, watch = Hand(), Stopwatch()

    def spread(cqt: Any) -> None:
        for _ in range(CHILDREN):
            cqt.subtask(noop)

    with connection.execute_wrapper(watch):
        parent = noop.delay()
        hand.run(hand.take(parent), spread)
        while taken := hand.claim(500):
            complete([hand.ending(row, Succeeded(result=None)) for row in taken])
    connection.close()
    assert fresh(parent).status == S
    assert Task.objects.filter(parent=parent, status="S").count() == CHILDREN
    assert watch.seconds < LONGEST_SECONDS, watch.statement

"""What bodies return and say that nobody should: each leads to an end, and is taken as text."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cq.definition.status import Status
from cq.models import LogLine, Progress
from cq.testing import drain
from tests.sampleapp import trouble
from tests.sampleapp.models import Effect

pytestmark = pytest.mark.usefixtures("database")
FORMATS = ("%s %d %(name)s %", "{} {0} {name!r} {", "$name ${x}", "%n%n%n%s%s")


def test_a_result_beyond_the_limit_fails_and_says_the_size() -> None:
    """B13: 1 MiB by default, as JSON; what the atomic body wrote is rolled back."""
    fits, large = trouble.return_much.delay(2**20 - 2), trouble.return_much.delay(2**20 - 1)
    drain()
    for task in (fits, large):
        task.refresh_from_db()
    assert (fits.status, len(fits.result)) == (Status.SUCCESS, 2**20 - 2)
    assert (large.status, large.result) == (Status.FAILURE, None)
    assert "1,048,577" in large.error or "1048577" in large.error
    assert [effect.task for effect in Effect.objects.all()] == [fits.id]


@pytest.mark.parametrize("text", FORMATS)
def test_what_a_body_says_is_no_format(text: str, caplog: Any) -> None:
    """B22."""
    with caplog.at_level(logging.INFO, logger="cq"):
        task = trouble.say.delay(text)
        drain()
    task.refresh_from_db()
    assert task.status == Status.SUCCESS
    assert LogLine.objects.get().message == text
    assert Progress.objects.get().message == text
    assert text in [record.getMessage() for record in caplog.records]

"""A float stays a float in the row, also where jsonb would read its short form as an integer."""

import pytest

from cq.models import Task
from cq.signals import task_enqueued
from cq.testing import drain
from tests.sampleapp.tasks import echo, noop

pytestmark = pytest.mark.django_db


def test_a_large_float_comes_back_as_a_float():
    task = echo.delay(1e16)
    drain()
    task.refresh_from_db()
    given = task.result["args"] if isinstance(task.result, dict) else task.result
    assert "float" in repr([type(value) for value in _flat(given)])


def test_a_receiver_that_raises_does_not_break_delay():
    def raises(**_):
        raise RuntimeError("a bad receiver")

    task_enqueued.connect(raises)
    try:
        task = noop.delay()
    finally:
        task_enqueued.disconnect(raises)
    assert Task.objects.filter(id=task.id).exists()


def _flat(value):
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]

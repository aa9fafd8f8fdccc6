"""What unit tests of the public names share: task functions that are forgotten afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cq.decorators import task
from cq.definition import registry


@pytest.fixture
def make_task() -> Iterator[Callable[..., Any]]:
    """`make_task(body, **options)`: decorate a function of the test module, for this test alone."""
    made: list[Any] = []

    def make(body: Any, *name: Any, **options: Any) -> Any:
        made.append(task(*name, **options)(body) if name or options else task(body))
        return made[-1]

    yield make
    for function in made:
        registry.unregister(function)

"""
What integration tests add to the fixtures of the suite: clients that may block a moment.

redis-py looks up its own version on disk at every connect, and the dispatcher's loop lives
on a thread that nobody waits for; everything else in cq stays forbidden to block.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def loop_is_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test in which cq blocks the event loop."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    with blockbuster_ctx(scanned_modules=["cq"]) as blocking:
        for function in blocking.functions.values():
            function.can_block_in("redis/utils.py", "get_lib_version")
            function.can_block_in("cq/transport/sender_thread.py", "_main")
        yield

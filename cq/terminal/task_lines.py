"""
One line for each attempt that a worker ends, with how long it took: `cq_runworker -v 2`.

Enters: the signals of this process. Leaves: lines in the log of the worker. What a child
process runs is told by its end alone, since it began elsewhere.
"""

import logging
import threading
import time
from typing import Any
from uuid import UUID

from cq.definition.status import Status
from cq.signals import task_finished, task_retried, task_started

_KEPT = 100_000

logger = logging.getLogger("cq.worker")


class TaskLines:
    """Remembers when attempts began, and tells of their ends; its signals come from any thread."""

    def __init__(self) -> None:
        self._began: dict[tuple[UUID, int | None], float] = {}
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Listen to the signals of this process for as long as this object lives."""
        task_started.connect(self._start)
        task_retried.connect(self._retry)
        task_finished.connect(self._finish)

    def _start(self, task_id: UUID, attempt: int, **facts: Any) -> None:
        with self._lock:
            # An attempt whose claim became void ends without a signal.
            while len(self._began) >= _KEPT:
                del self._began[next(iter(self._began))]
            self._began[task_id, attempt] = time.monotonic()

    def _retry(self, delay: float, **facts: Any) -> None:
        self._tell(f"is tried again in {delay:.3g} s", **facts)

    def _finish(self, status: str, **facts: Any) -> None:
        self._tell(Status(status).label, **facts)

    def _tell(
        self, what: str, *, task_id: UUID, func_name: str, attempt: int | None, **facts: Any
    ) -> None:
        # By its number: the next attempt may begin before the end of this one is told.
        with self._lock:
            began = self._began.pop((task_id, attempt), None)
        took = "" if began is None else f", {time.monotonic() - began:.3f} s"
        logger.info("%s %s: %s%s", func_name, task_id, what, took)

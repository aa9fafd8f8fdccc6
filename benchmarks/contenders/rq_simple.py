"""RQ with SimpleWorker, which runs tasks in its own process."""

from __future__ import annotations

from benchmarks.contenders.rq import RqForks


class RqSimple(RqForks):
    """No fork for a task, hence faster and less safe."""

    title = "RQ (SimpleWorker)"
    settings = "2 × `rq worker --worker-class rq.worker.SimpleWorker`; the naps in 100 of them."
    worker_class = "rq.worker.SimpleWorker"


contender = RqSimple()

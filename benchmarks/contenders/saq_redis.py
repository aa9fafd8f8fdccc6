"""SAQ on Redis."""

from __future__ import annotations

from saq import Queue

from benchmarks.contender import redis_url
from benchmarks.contenders.saq import Saq, worker_settings

settings = worker_settings(Queue.from_url(redis_url(), name="bench"))


class SaqRedis(Saq):
    """Its first home."""

    title = "SAQ (Redis)"
    store = "Redis"
    module = __name__
    url = redis_url()


contender = SaqRedis()

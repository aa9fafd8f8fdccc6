"""SAQ on PostgreSQL."""

from __future__ import annotations

from saq import Queue

from benchmarks.contender import Rows, database_url
from benchmarks.contenders.saq import Saq, worker_settings

settings = worker_settings(Queue.from_url(database_url(), name="bench"))


class SaqPostgres(Saq):
    """Its second home."""

    title = "SAQ (PostgreSQL)"
    store = "PostgreSQL"
    module = __name__
    url = database_url()
    # The job knows its key; the rows of the backlog need only be distinct to be claimed.
    rows = Rows("saq_jobs", {"key": "r.key || '-' || n"}, skipped=("lock_key",))


contender = SaqPostgres()

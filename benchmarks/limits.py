"""
The limits: what bare PostgreSQL and bare Redis do on this machine, in this run.

No queue that commits a row for each task can be faster than the first, and every ratio to them
outlives a change of the machine. Each figure is a rate per second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psycopg
import redis

from benchmarks.campaign import fresh_services
from benchmarks.figures import Figures, medians

TABLE = """
    CREATE TABLE bare (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), status "char" NOT NULL,
        args jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now(), worker uuid);
    CREATE INDEX bare_due ON bare (at) WHERE status = 'Q';
"""
INSERT = "INSERT INTO bare (status, args) VALUES ('Q', '[1, 2]')"
BULK = "INSERT INTO bare (status, args) SELECT 'Q', '[1, 2]' FROM generate_series(1, %s)"
CLAIM = """
    UPDATE bare SET status = 'R' WHERE id = ANY(ARRAY(SELECT id FROM bare WHERE status = 'Q'
        ORDER BY at LIMIT 100 FOR UPDATE SKIP LOCKED)) RETURNING id, args
"""
END = "UPDATE bare SET status = 'S' WHERE id = ANY(%s)"
FIGURES = {
    "PostgreSQL commit": "single INSERTs, each committed, one connection",
    "PostgreSQL bulk": "rows by INSERTs of 1,000",
    "PostgreSQL claim and end": "rows claimed and ended by 100 (SKIP LOCKED), one connection",
    "Redis round trip": "PINGs, one after the other",
    "Redis push and pop": "LPUSH, then BRPOP, one after the other",
    "Redis pipelined": "LPUSHes in pipelines of 100",
}
"""What each figure is."""


def measure(rounds: int, scale: float = 1.0) -> Figures:
    """The medians of several rounds."""
    found = []
    for _ in range(rounds):
        with fresh_services() as environment:
            found.append({**_postgres(environment["DATABASE_URL"], scale), **_redis(scale)})
    return medians(found)


def _postgres(url: str, scale: float) -> Figures:
    singles, many = max(50, int(3000 * scale)), max(1, int(50 * scale))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE)
        # Prepared, as a driver does by itself after five calls.
        single = _rate(singles, lambda: connection.execute(INSERT, prepare=True))
        bulk = 1000 * _rate(many, lambda: connection.execute(BULK, [1000], prepare=True))

        def claim_and_end() -> None:
            claimed = [row[0] for row in connection.execute(CLAIM, prepare=True).fetchall()]
            connection.execute(END, [claimed], prepare=True)

        claims = 100 * _rate(10 * many, claim_and_end)
    return {
        "PostgreSQL commit": single,
        "PostgreSQL bulk": bulk,
        "PostgreSQL claim and end": claims,
    }


def _redis(scale: float) -> Figures:
    count = max(50, int(5000 * scale))
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:

        def push_and_pop() -> None:
            client.lpush("bare", b"x")
            client.brpop(["bare"], timeout=1)

        def pipelined() -> None:
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(100):
                    pipeline.lpush("bare", b"x")
                pipeline.execute()

        return {
            "Redis round trip": _rate(count, client.ping),
            "Redis push and pop": _rate(count, push_and_pop),
            "Redis pipelined": 100 * _rate(max(1, count // 50), pipelined),
        }


def _rate(count: int, call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - begin)

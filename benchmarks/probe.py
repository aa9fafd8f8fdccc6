"""
`python -m benchmarks.probe CONTENDER WORKLOAD SIZE [KIND]`: one round, in the contender's own
environment. The last line of the output is one JSON object: the figures, or `not offered`.
The workload `describe` tells what the tables say of the contender.

Expects DATABASE_URL (an empty database), REDIS_URL (an empty Redis) and a folder for the meter.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import meter
from benchmarks.contender import Contender, NotOffered, database_url
from benchmarks.figures import Figures
from benchmarks.workloads import WORKLOADS, Probe


def contender_of(name: str) -> Contender:
    """The contender of that module."""
    found = importlib.import_module(f"benchmarks.contenders.{name}").contender
    if not isinstance(found, Contender):
        raise TypeError(f"benchmarks.contenders.{name}.contender is {found!r}, no Contender.")
    return found


def measure(name: str, workload: str, size: int, *options: str) -> dict[str, float | str]:
    """One round of a workload; `{"not offered": …}` where the contender has no such thing."""
    contender = contender_of(name)
    if workload == "describe":
        told = {field: str(getattr(contender, field)) for field in ("title", "store", "settings")}
        return {**told, "kinds": ", ".join(contender.kinds)}
    probe = Probe(contender, Path(os.environ[meter.FOLDER]), lambda: _analyze(contender))
    try:
        contender.prepare()
        if workload in ("backlog", "grow-backlog", "grow-history"):
            contender.enqueue("noop")
            _copy_rows(contender, size)
        return {**_workload(workload)(probe, size, *options)}
    except NotOffered:
        return {"not offered": workload}
    finally:
        contender.close()


def _workload(name: str) -> Callable[..., Figures]:
    if name in WORKLOADS:
        return WORKLOADS[name]
    # The workloads of growth look into cq, which only its own environment has.
    return importlib.import_module("benchmarks.growth").WORKLOADS[name]  # type: ignore[no-any-return]


def _analyze(contender: Contender) -> None:
    if contender.store != "PostgreSQL":
        return
    import psycopg  # noqa: PLC0415 - only the environments of these contenders have it

    with psycopg.connect(database_url(), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _copy_rows(contender: Contender, count: int) -> None:
    """Copy the row of the one enqueued task, since a million calls would take hours for some."""
    rows = contender.rows
    if rows is None:
        raise NotOffered
    import psycopg  # noqa: PLC0415

    with psycopg.connect(database_url(), autocommit=True) as connection:
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name = %s AND is_generated = 'NEVER'",
            [rows.table],
        ).fetchall()
        columns = [name for (name,) in found if name not in rows.skipped]
        values = [rows.new_values.get(name, f'r."{name}"') for name in columns]
        quoted = [f'"{name}"' for name in columns]
        connection.execute(
            f"INSERT INTO {rows.table} ({', '.join(quoted)}) SELECT {', '.join(values)} "
            f"FROM {rows.table} r CROSS JOIN generate_series(1, {int(count)}) AS n"
        )


if __name__ == "__main__":
    contender_name, workload_name, wanted, *rest = sys.argv[1:]
    print(json.dumps(measure(contender_name, workload_name, int(wanted), *rest)))

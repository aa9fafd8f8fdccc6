"""
Crowds: many sockets on one web process, each with every line once, and what they cost.

The full sizes want the machine for themselves; they print their figures (`-s` shows them).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from statistics import median

import pytest
import redis
from django.db.models import Max, Min

from cq.definition.status import Status
from cq.models import Task
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.crowd import Crowd
from tests.sampleapp import tasks
from tests.waiting import wait_until
from tests.web_process import WebProcess, processor_seconds
from tests.workers import WorkerFactory

SCOPES = ("progress", "tree", "log")


@pytest.fixture
def web(worker_process: WorkerFactory) -> Iterator[WebProcess]:
    made = WebProcess(worker_process)
    yield made
    made.stop()


FULL = [pytest.mark.exhaustive, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("sockets", "trees", "seconds"),
    [pytest.param(40, 4, 2, id="small"), pytest.param(500, 10, 60, id="full", marks=FULL)],
)
def test_every_socket_of_a_crowd_gets_every_line_once(
    web: WebProcess, worker_process: WorkerFactory, sockets: int, trees: int, seconds: int
) -> None:
    count = 20 * seconds
    rows = [tasks.log_lines.delay(count, 0.05) for _ in range(trees)]
    passes = [(str(row.id), watch_token(row, SCOPES)) for row in rows]
    with closing(Crowd(web.url, [passes[n % trees] for n in range(sockets)])) as crowd:
        before, at_rest = processor_seconds(web.pid), web.mark_memory()
        worker_process("-c", str(trees))
        report = crowd.report()
    print(  # noqa: T201
        f"\n{sockets} sockets x 20 lines/s x {seconds} s: {report.lines} lines in {report.frames} "
        f"frames, {report.gaps} gaps, {report.repeats} repeats, delivered within "
        f"{1000 * report.delay(0.5):.0f} ms (p50) {1000 * report.delay(0.99):.0f} ms (p99), "
        f"web process {processor_seconds(web.pid) - before:.1f} s of processor time, "
        f"{at_rest:.0f} -> {web.peak_memory():.0f} MiB"
    )
    assert (report.gaps, report.repeats, report.closed) == (0, 0, 0)
    assert (report.ends, report.lines) == (sockets, sockets * count)


@dataclass(frozen=True, slots=True)
class Run:
    """One tree: tasks a second, what was published meanwhile, and what it cost the worker."""

    rate: float
    published: int
    worker_seconds: float


def run_tree(
    web: WebProcess, worker: int, redis_url: str, children: int, seconds: float, watchers: int
) -> Run:
    """Run a tree of children that take so long, watched by so many pages."""
    row = tasks.fan_out.using(submit=False).delay(children, seconds)
    crowd = Crowd(web.url, [(str(row.id), watch_token(row, SCOPES))] * watchers)
    with closing(crowd), redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        before = processor_seconds(worker)
        row.submit()
        wait_until(lambda: Task.objects.get(pk=row.id).status == Status.SUCCESS, timeout=120)
        spent = processor_seconds(worker) - before
        published = client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
        report = crowd.report()
    assert (report.ends, report.closed, report.gaps) == (watchers, 0, 0)
    span = Task.objects.filter(parent=row.id).aggregate(first=Min("started"), last=Max("finished"))
    return Run(children / (span["last"] - span["first"]).total_seconds(), published, spent)


@pytest.mark.parametrize(
    ("rounds", "children", "seconds", "watchers", "least"),
    [
        pytest.param(1, 300, 0.0, 30, 0.0, id="small"),
        pytest.param(5, 3000, 0.1, 200, 0.95, id="full", marks=FULL),
        # At the limit of both cores whatever else is done, telling or listening, is taken from
        # the tasks; the bound is there to notice when it becomes much more than it is.
        pytest.param(5, 6000, 0.0, 200, 0.4, id="full-noops", marks=FULL),
    ],
)
def test_watchers_cost_a_tree_little_and_nobody_costs_it_nothing(
    web: WebProcess,
    worker_process: WorkerFactory,
    use_layers: Layers,
    rounds: int,
    children: int,
    seconds: float,
    watchers: int,
    least: float,
) -> None:
    worker = worker_process("--no-scheduler").pid
    runs: dict[int, list[Run]] = {0: [], 1: [], watchers: []}
    for _ in range(rounds):
        for count, made in runs.items():
            made.append(run_tree(web, worker, use_layers.url, children, seconds, count))
    for count, made in runs.items():
        print(  # noqa: T201
            f"\n{count} watchers: {median(run.rate for run in made):.0f} tasks/s, "
            f"{median(run.worker_seconds for run in made):.2f} s of the worker's processor time, "
            f"{median(run.published for run in made):.0f} publishes for {children} tasks"
        )
    # The first round, for a later one may count the last words of the tree before it.
    assert runs[0][0].published == 0
    # What is told is told once for all watchers, and together for many tasks.
    assert max(run.published for run in runs[watchers]) <= children / 3
    rates = [median(run.rate for run in runs[count]) for count in (0, watchers)]
    assert rates[1] >= least * rates[0]

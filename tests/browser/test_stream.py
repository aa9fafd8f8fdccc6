"""
The stream in a real Chromium: every line once and in order, whatever happens on the way (P24).

Between browser and daphne lies a wire that the test cuts and blocks; beside it Redis is
emptied and killed. The full sizes print their figures (`-s` shows them).
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
from playwright.sync_api import Browser, Page

from cq.models import LogLine
from tests.conftest import Layers
from tests.services import Server
from tests.waiting import wait_until
from tests.web_process import WebProcess
from tests.wire import Wire
from tests.workers import WorkerFactory

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

TASK_MODULES = {"TASK_MODULES": ["tests.browser.site_tasks"]}
MOST_MIB = 50
RECORDER = """
    // What the element has told, in order, and how old each report of progress was.
    window.seqs = [];
    window.ends = 0;
    window.ages = [];
    addEventListener("cq:log", ({ detail }) => seqs.push(...detail.lines.map((l) => l.seq)), true);
    addEventListener("cq:end", () => (ends += 1), true);
    addEventListener("cq:progress", ({ detail }) => {
        const told = Number(detail.message);
        requestAnimationFrame(() => ages.push(Date.now() - 1000 * told));
    }, true);
"""
ORDER = """() => {
    const wrong = seqs.findIndex((seq, index) => seq !== index + 1);
    const around = wrong < 0 ? [] : seqs.slice(Math.max(0, wrong - 2), wrong + 3);
    return { count: seqs.length, wrong, around, ends };
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.add_init_script(RECORDER)
    yield context.new_page()
    context.close()


@pytest.fixture
def web(worker_process: WorkerFactory) -> Iterator[WebProcess]:
    made = WebProcess(worker_process, "tests.browser.site_asgi:application", cq=TASK_MODULES)
    yield made
    made.stop()


@pytest.fixture
def wire(web: WebProcess) -> Iterator[Wire]:
    with closing(Wire(web.port)) as made:
        yield made


def start(name: str, *args: Any, show: str) -> str:
    """The path that enqueues a task and leads to its page."""
    return f"/start/{name}?" + urlencode({"args": json.dumps(args), "show": show})


def has_ended(page: Page) -> bool:
    return bool(page.evaluate("ends > 0"))


def received(page: Page) -> int:
    return int(page.evaluate("seqs.length"))


def assert_all_once(page: Page, count: int) -> None:
    """Every line from the first to the last, each once, and one end."""
    expected = {"count": count, "wrong": -1, "around": [], "ends": 1}
    assert page.evaluate(ORDER) == expected


FULL = [pytest.mark.exhaustive, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("count", "pause", "cuts"),
    [(900, 0.003, 3), pytest.param(25_000, 0.005, 50, marks=FULL)],
    ids=["small", "full"],
)
def test_every_line_arrives_once_whatever_is_cut_flushed_or_restarted(
    web: WebProcess,
    wire: Wire,
    worker_process: WorkerFactory,
    use_layers: Layers,
    redis_server: Server,
    page: Page,
    count: int,
    pause: float,
    cuts: int,
) -> None:
    rand, done = random.Random(11), 0
    chorus = start("tests.sampleapp.tasks.log_in_chorus", 4, count, pause, show="bar log")
    page.goto(wire.url + chorus)
    wait_until(lambda: wire.sockets)
    at_rest = web.mark_memory()
    worker_process("-c", "8", cq=TASK_MODULES)
    while done < cuts and not has_ended(page):
        seen = received(page)
        wait_until(lambda seen=seen: received(page) > seen or has_ended(page), timeout=30)
        page.wait_for_timeout(rand.uniform(0, 800))
        done += wire.cut()
        if done == cuts // 3:
            flush(use_layers.url)
        if done == 2 * cuts // 3:
            redis_server.kill()
            redis_server.resume()
    wait_until(lambda: has_ended(page), timeout=FULL[1].args[0])
    assert_all_once(page, 4 * count)
    grown = web.peak_memory() - at_rest
    print(f"\n{4 * count} lines, {done} cuts, server memory +{grown:.1f} MiB")  # noqa: T201
    assert done >= cuts
    assert grown <= MOST_MIB


def flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


@pytest.mark.parametrize(
    ("count", "pause", "seconds"),
    [(800, 0.0005, 1), pytest.param(25_000, 0.003, 30, marks=FULL)],
    ids=["small", "full"],
)
def test_a_reader_that_stalls_costs_nothing_and_goes_on_without_a_gap(
    web: WebProcess,
    wire: Wire,
    worker_process: WorkerFactory,
    page: Page,
    count: int,
    pause: float,
    seconds: float,
) -> None:
    chorus = start("tests.sampleapp.tasks.log_in_chorus", 4, count, pause, show="bar log")
    page.goto(wire.url + chorus)
    wait_until(lambda: wire.sockets)
    at_rest = web.mark_memory()
    worker_process("-c", "8", cq=TASK_MODULES)
    wait_until(lambda: received(page) > 100, timeout=20)
    wire.hold()
    page.wait_for_timeout(1000 * seconds)
    seen = received(page)
    recorded = LogLine.objects.count()
    wire.release()
    wait_until(lambda: has_ended(page), timeout=600)
    assert_all_once(page, 4 * count)
    grown = web.peak_memory() - at_rest
    print(f"\n{recorded - seen} lines behind, server memory +{grown:.1f} MiB")  # noqa: T201
    assert recorded > seen + 1000
    assert grown <= MOST_MIB


@pytest.mark.parametrize(
    ("count", "most_ms"), [(6, 1000), pytest.param(60, 150, marks=FULL)], ids=["small", "full"]
)
def test_progress_is_seen_soon_after_it_was_reported(
    web: WebProcess, worker_process: WorkerFactory, page: Page, count: int, most_ms: float
) -> None:
    page.goto(web.url + start("tests.sampleapp.tasks.tell_time", count, 0.3, show="bar"))
    worker_process(cq=TASK_MODULES)
    wait_until(lambda: has_ended(page), timeout=60)
    ages = page.evaluate("ages")
    print(  # noqa: T201
        f"\nprogress is {statistics.median(ages):.0f} ms old (p50) when it is seen, "
        f"{sorted(ages)[int(0.99 * (len(ages) - 1))]:.0f} ms (p99), {len(ages)} of {count} seen"
    )
    assert len(ages) >= 0.8 * count
    assert statistics.median(ages) < most_ms

"""
<cq-task> in a real Chromium, behind a real daphne, fed by a real worker.

Every page has the policy `default-src 'self'`, and a word in the console fails its test.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.driver import (
    NO_SOCKETS,
    RECORDER,
    SETTINGS,
    Site,
    ends,
    heard,
    numbers,
    shoot,
)
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_a_bar_fills_survives_a_reload_and_ends_once(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start("tests.sampleapp.tasks.report_progress", 40, 0.1, show="bar log"))
    bar = page.get_by_role("progressbar")
    word = page.locator("cq-task .word")
    expect(word).to_have_text("Running", timeout=5000)
    wait_until(lambda: int(bar.get_attribute("aria-valuenow") or 0) >= 50, timeout=15)
    shoot(page, "element-running")
    assert len(heard(page, "progress")) >= 4
    before = int(bar.get_attribute("aria-valuenow") or 0)
    page.reload()
    wait_until(lambda: int(bar.get_attribute("aria-valuenow") or 0) >= before, timeout=5)
    expect(word).to_have_text("Success", timeout=15_000)
    expect(bar).to_have_attribute("aria-valuenow", "100")
    assert ends(page) == 1
    assert heard(page, "success")[0]["status"] == "success"
    shoot(page, "element-success")
    page.reload()
    expect(word).to_have_text("Success")
    assert ends(page) == 1


def test_a_socket_cut_after_line_ten_of_thirty_goes_on_at_eleven(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start("tests.sampleapp.tasks.log_lines", 30, 0.1, show="bar log"))
    wait_until(lambda: len(numbers(page)) >= 10, timeout=10)
    page.evaluate("sockets.at(-1).close()")
    expect(page.locator("cq-task .word")).to_have_text("Success", timeout=20_000)
    assert numbers(page) == [str(number) for number in range(1, 31)]
    told = [line["seq"] for detail in heard(page, "log") for line in detail["lines"]]
    assert told == list(range(1, 31))
    assert page.evaluate("sockets.length") == 2
    again = page.evaluate("sockets[1].sent[0]")
    assert again["since"] >= 10
    assert ends(page) == 1
    shoot(page, "element-log")


def test_without_sockets_it_polls(
    site: Site, worker_process: WorkerFactory, browser: Browser
) -> None:
    worker_process(cq=SETTINGS)
    context = browser.new_context()
    context.add_init_script(RECORDER)
    context.add_init_script(NO_SOCKETS)
    page = context.new_page()
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.goto(site.start("tests.sampleapp.tasks.log_lines", 20, 0.15, show="bar log"))
    expect(page.locator("cq-task .word")).to_have_text("Success", timeout=20_000)
    expect(page.locator("cq-task .line")).to_have_count(20)
    assert numbers(page) == [str(number) for number in range(1, 21)]
    assert "poll" in [told["transport"] for told in heard(page, "transport")]
    assert ends(page) == 1
    polls = [request for request in requests if "/watch" in request.url]
    assert polls
    assert all("token" not in request.url for request in polls)
    context.close()


def test_a_tree_appears_and_one_socket_serves_the_page(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start("tests.sampleapp.tasks.fan_out", 12, show="bar tree log"))
    expect(page.locator("cq-task .word")).to_have_text("Success", timeout=20_000)
    expect(page.locator("cq-task .node")).to_have_count(12)
    expect(page.locator("cq-task .node.is-success")).to_have_count(12)
    assert page.evaluate("sockets.length") == 1
    shoot(page, "element-tree")


def test_a_button_revokes_and_another_runs_it_again(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(
        site.start(
            "tests.sampleapp.tasks.log_lines", 60, 0.1, show="bar log", actions="revoke retry"
        )
    )
    expect(page.locator("cq-task .word")).to_have_text("Running", timeout=5000)
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("cq-task .word")).to_have_text("Revoked", timeout=5000)
    expect(page.get_by_role("button", name="Revoke")).to_be_hidden()
    assert ends(page) == 1
    assert heard(page, "failure")[0]["status"] == "revoked"
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("cq-task .word")).to_have_text("Running", timeout=5000)
    expect(page.locator("cq-task .word")).to_have_text("Success", timeout=20_000)


def test_what_a_task_says_stays_text(site: Site, worker_process: WorkerFactory, page: Page) -> None:
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    worker_process(cq=SETTINGS)
    page.goto(site.start("tests.browser.site_tasks.say", hostile, show="bar log result"))
    expect(page.locator("cq-task .word")).to_have_text("Success", timeout=10_000)
    expect(page.locator("cq-task .line .text")).to_have_text(hostile)
    assert page.locator("cq-task img, cq-task script").count() == 0

"""
<cq-task> in a real Chromium, behind a real daphne, fed by a real worker.

Every page has the policy `default-src 'self'`, and a word in the console fails its test.
CQ_SCREENSHOTS names a folder that then receives pictures of the pages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.integration.test_access import Person
from tests.waiting import wait_until
from tests.workers import ROOT, WorkerFactory
from tools import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

RECORDER = """
    // Everything the element said, and every socket it opened with what went over it.
    window.heard = [];
    window.sockets = [];
    for (const name of ["state", "progress", "log", "child", "success", "failure", "end",
                        "transport", "error", "expired"]) {
        addEventListener(`cq:${name}`, (event) => heard.push([name, event.detail]), true);
    }
    const Socket = window.WebSocket;
    window.WebSocket = class extends Socket {
        constructor(...args) {
            super(...args);
            this.sent = [];
            sockets.push(this);
        }
        send(text) {
            this.sent.push(JSON.parse(text));
            super.send(text);
        }
    };
"""
NO_SOCKETS = """
    window.WebSocket = class {
        static OPEN = 1;
        constructor() { setTimeout(() => this.onclose?.({ code: 1006 })); }
        close() {}
        send() {}
    };
"""


SETTINGS = {"TASK_MODULES": ["tests.browser.site_tasks"]}


class Site:
    """A running daphne, and the pages one can open there."""

    def __init__(self, factory: WorkerFactory, folder: Path) -> None:
        self._log = folder / "daphne.log"
        environment = {
            **os.environ,
            **factory.environment,
            **factory.layer_environment(),
            "CQ_TEST_CQ": json.dumps(SETTINGS),
        }
        command = ["-m", "daphne", "-b", "127.0.0.1", "-p", "0"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command, "tests.browser.site_asgi:application"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.url = f"http://127.0.0.1:{wait_until(self._listening, timeout=30)}"

    def _listening(self) -> str:
        found = re.search(r"Listening on TCP address 127\.0\.0\.1:(\d+)", self.output())
        if self._process.poll() is not None:
            raise AssertionError(f"daphne ended by itself. It printed:\n{self.output()}")
        return found[1] if found else ""

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self, name: str, *args: Any, **query: str) -> str:
        """The address that enqueues a sample task and leads to its page."""
        data = urlencode({"args": json.dumps(args), **query})
        return f"{self.url}/start/{name}?{data}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)


@pytest.fixture(scope="module", autouse=True)
def rows_beside_a_browser() -> Iterator[None]:
    """Playwright keeps a loop on this thread; nothing runs on it while the test uses rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield


@pytest.fixture
def site(worker_process: WorkerFactory, tmp_path: Path) -> Iterator[Site]:
    made = Site(worker_process, tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 800, "height": 600})
    context.add_init_script(RECORDER)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    yield page
    context.close()
    assert said == []


def heard(page: Page, name: str) -> list[Any]:
    """The details of every event of this name so far."""
    return [detail for kind, detail in page.evaluate("window.heard") if kind == name]


def ends(page: Page) -> int:
    """How often the end was told, once it was."""
    wait_until(lambda: heard(page, "end"), timeout=10)
    return len(heard(page, "end"))


def numbers(page: Page) -> list[str]:
    """The numbers of the lines that are shown."""
    return page.locator("cq-task .line .number").all_inner_texts()


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("CQ_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


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
    assert {"transport": "poll"} in heard(page, "transport")
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


def test_the_page_of_a_task_shows_what_staff_may_see(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    person = Person("boss", "view_task", "revoke_task", is_staff=True)
    cookie = {"name": "sessionid", "value": person.session, "url": site.url}
    page.context.add_cookies([cookie])  # type: ignore[list-item]
    page.goto(site.start("tests.sampleapp.tasks.log_lines", 30, 0.1))
    id = page.locator("cq-task").get_attribute("task")
    page.goto(f"{site.url}/cq/t/{id}/")
    expect(page.locator("cq-task .word")).to_have_text("Queued")
    worker_process(cq=SETTINGS)
    expect(page.locator("cq-task .word")).to_have_text("Running", timeout=10_000)
    shoot(page, "page-running")
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("cq-task .word")).to_have_text("Revoked", timeout=5000)
    expect(page.get_by_role("button", name="Retry")).to_be_hidden()

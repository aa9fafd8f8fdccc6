"""
What <cq-task> owes the page it stands in: its events, its looks, and everybody who reads it.

Every page has the policy `default-src 'self'`, and a word in the console fails its test.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.accessibility import problems
from tests.browser.driver import RECORDER, SETTINGS, Site, ends, heard, shoot
from tests.integration.test_access import Person
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

TASKS = "tests.sampleapp.tasks."
SAY = "tests.browser.site_tasks.say"
WORD = "cq-task .word"


def ended(page: Page, word: str) -> None:
    expect(page.locator(WORD)).to_have_text(word, timeout=20_000)


def log_in(page: Page, site: Site, person: Person) -> None:
    cookie = {"name": "sessionid", "value": person.session, "url": site.url}
    page.context.add_cookies([cookie])  # type: ignore[list-item]


def test_the_end_is_told_once_also_after_the_end_and_after_a_move(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(SAY, "hello", show="bar log result"))
    ended(page, "Success")
    page.reload()
    assert ends(page) == 1
    [end] = heard(page, "end")
    assert (end["status"], end["result"]) == ("success", "hello")
    assert end["duration"] >= 0
    page.evaluate("document.querySelector('main').prepend(document.querySelector('cq-task'))")
    expect(page.locator("cq-task .line")).to_have_count(1)
    assert ends(page) == 1
    assert page.evaluate("document.querySelector('cq-task').ended.then((end) => end.status)")
    assert page.evaluate("document.querySelector('cq-task').result") == "hello"


def test_an_error_is_shown_to_those_who_may_see_it_and_to_nobody_else(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(TASKS + "fail", "<b>broken</b>", show="bar error log tree"))
    ended(page, "Failure")
    expect(page.locator("cq-task .error")).to_contain_text("<b>broken</b>")
    assert ends(page) == 1
    assert heard(page, "failure")[0]["error"]
    shoot(page, "element-error")
    page.goto(page.url + "&can=progress")
    ended(page, "Failure")
    for part in ("error", "log", "tree"):
        expect(page.locator(f"cq-task .{part}")).to_be_hidden()
    assert ends(page) == 1
    assert heard(page, "failure")[0]["error"] is None


def test_success_leads_on_once_and_only_if_it_was_waited_for(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    page.goto(site.start(SAY, "hello", on_success="reload"))
    expect(page.locator(WORD)).to_have_text("Queued")
    with page.expect_navigation():
        worker_process(cq=SETTINGS)
    ended(page, "Success")
    assert ends(page) == 1
    page.goto(site.start(TASKS + "report_progress", 5, 0.3, on_success="remove"))
    expect(page.locator("cq-task")).to_have_count(0, timeout=10_000)
    script = "redirect:javascript:alert(1)"
    page.goto(site.start(TASKS + "report_progress", 5, 0.3, on_success=script))
    ended(page, "Success")
    slow = site.start(TASKS + "report_progress", 5, 0.3, on_success="redirect:/show/next?x=1")
    page.goto(slow)
    page.route("**/show/next?x=1", lambda route: route.fulfill(body="<title>next</title>"))
    page.wait_for_url("**/show/next?x=1")


def test_many_siblings_are_folded_and_opened_with_the_keyboard(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(TASKS + "fan_out", 25, show="bar tree"))
    ended(page, "Success")
    fold = page.locator("cq-task .fold")
    expect(fold).to_have_text("noop × 25")
    expect(page.locator("cq-task .node")).to_have_count(1)
    expect(page.locator("cq-task .node .detail")).to_have_text("25 ok")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(fold).to_be_focused()
    page.keyboard.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(page.locator("cq-task .node.is-success")).to_have_count(25)
    expect(fold).to_be_focused()
    shoot(page, "element-folded")


def test_colours_of_a_terminal_are_styles_and_other_escapes_are_nothing(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    text = (
        "plain \x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mdeep\x1b[39m \x1b[48;5;196mon red\x1b[m"
        " \x1b]0;title\x07\x1b[2J\x1b[999mend <b>"
    )
    page.goto(site.start(SAY, text, show="bar log"))
    ended(page, "Success")
    line = page.locator("cq-task .line .text")
    expect(line).to_have_text("plain red deep on red end <b>")
    styles = line.locator("span").evaluate_all(
        "spans => spans.map((one) => [one.textContent, one.style.fontWeight, one.style.color])"
    )
    assert styles[0][:2] == ["red", "bold"]
    assert "--cq-ansi-1" in styles[0][2]
    assert ["deep", "", "rgb(1, 2, 3)"] in styles
    assert line.locator("b").count() == 0


HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_watches_nothing_and_misses_nothing(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(TASKS + "log_lines", 120, 0.1, show="bar log"))
    wait_until(lambda: len(heard(page, "log")) >= 2, timeout=10)
    page.evaluate(HIDE, True)
    wait_until(lambda: page.evaluate("sockets[0].readyState") == 3, timeout=10)
    assert page.evaluate("sockets[0].sent.some((frame) => frame.type === 'unsub')")
    assert page.evaluate("sockets.length") == 1
    page.evaluate(HIDE, False)
    ended(page, "Success")
    told = [line["seq"] for detail in heard(page, "log") for line in detail["lines"]]
    assert told == list(range(1, 121))
    assert page.evaluate("sockets.length") == 2
    assert ends(page) == 1


def test_a_token_that_ends_is_renewed_for_its_user_and_for_nobody_else(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    page.goto(site.start(TASKS + "log_lines", 3, ttl="-1", show="bar log", actions="revoke"))
    wait_until(lambda: heard(page, "expired"), timeout=10)
    expect(page.get_by_text("Load the page again.")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)
    assert page.locator("cq-task .fill").evaluate("one => getComputedStyle(one).animationName") == (
        "none"
    )
    assert heard(page, "error")[0]["code"] == "expired"
    log_in(page, site, Person("ann"))
    page.reload()
    expect(page.locator(WORD)).to_have_text("Queued")
    worker_process(cq=SETTINGS)
    ended(page, "Success")
    expect(page.locator("cq-task .line")).to_have_count(3)
    assert heard(page, "expired") == []
    tokens = page.evaluate(
        "sockets[0].sent.filter((frame) => frame.type === 'sub').map((frame) => frame.token)"
    )
    assert len(set(tokens)) == 2


def test_it_can_be_watched_without_an_element(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(TASKS + "report_progress", 3, 0.1))
    wait_until(lambda: heard(page, "state"), timeout=10)
    told: list[Any] = page.evaluate(
        """async () => {
            const { watch } = await import("/static/cq/cq.js");
            const element = document.querySelector("cq-task");
            const [id, token] = ["task", "token"].map((name) => element.getAttribute(name));
            const watched = watch({ id, token });
            const told = [];
            for await (const { type, detail } of watched) told.push([type, detail.status ?? null]);
            return told;
        }"""
    )
    assert told[-2:] == [["success", "success"], ["end", "success"]]
    assert {"state", "progress"} <= {kind for kind, _ in told}
    assert page.evaluate("sockets.length") == 1


def test_pause_keeps_what_is_shown_and_refresh_goes_on(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    page.goto(site.start(TASKS + "log_lines", 30, 0.05, show="bar log"))
    wait_until(lambda: heard(page, "log"), timeout=10)
    page.evaluate("document.querySelector('cq-task').pause()")
    shown = page.locator("cq-task .line").count()
    assert shown > 0
    assert heard(page, "end") == []
    page.evaluate("document.querySelector('cq-task').refresh()")
    ended(page, "Success")
    expect(page.locator("cq-task .line")).to_have_count(30)


def test_slots_speak_for_the_site(site: Site, worker_process: WorkerFactory, page: Page) -> None:
    page.goto(site.start(SAY, "hello"))
    id = page.locator("cq-task").get_attribute("task")
    page.goto(f"{site.url}/slots/{id}")
    expect(page.get_by_text("Your holiday pictures")).to_be_visible()
    expect(page.get_by_text("in the queue")).to_be_visible()
    expect(page.get_by_text("All done")).to_be_hidden()
    worker_process(cq=SETTINGS)
    expect(page.get_by_text("All done")).to_be_visible(timeout=10_000)
    expect(page.get_by_text("in the queue")).to_be_hidden()
    expect(page.get_by_text("sorry")).to_be_hidden()


def test_without_javascript_it_is_right_when_the_page_is_made(
    site: Site, worker_process: WorkerFactory, browser: Browser
) -> None:
    worker_process(cq=SETTINGS)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.start(TASKS + "fail", "oh no", show="bar error"))
    wait_until(lambda: "Failure" in (page.reload() and page.content()), timeout=10)
    expect(page.locator("cq-task span")).to_have_text(f"{TASKS}fail: Failure")
    expect(page.locator("cq-task pre")).to_contain_text("oh no")
    context.close()


CANVAS = """
    // axe takes a page without a background for a white one, whatever its colour scheme.
    const canvas = new CSSStyleSheet();
    canvas.replaceSync("html { background: Canvas; color: CanvasText; }");
    document.adoptedStyleSheets = [canvas];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_reading_it(
    site: Site, worker_process: WorkerFactory, browser: Browser, scheme: Any
) -> None:
    worker_process("--grace", "0.1", cq=SETTINGS)  # one task is left running
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    context.add_init_script(RECORDER)
    context.add_init_script(CANVAS)
    page = context.new_page()
    show = {"show": "bar tree log error", "actions": "revoke retry"}
    page.goto(site.start(TASKS + "fan_out", 25, **show))
    ended(page, "Success")
    text = page.locator("cq-task .word").evaluate("one => getComputedStyle(one).color")
    assert text == {"light": "rgb(26, 127, 75)", "dark": "rgb(95, 211, 154)"}[scheme]
    assert problems(page) == []
    page.goto(site.start(TASKS + "fail", "\x1b[31mred\x1b[33mgold", **show))
    ended(page, "Failure")
    assert problems(page) == []
    page.goto(site.start(TASKS + "report_progress", 100, 0.1, **show))
    expect(page.locator(WORD)).to_have_text("Running", timeout=10_000)
    assert page.locator("cq-task .fill").evaluate("one => getComputedStyle(one).animationName") == (
        "none"
    )
    assert problems(page) == []
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    spoken = page.locator("cq-task [role=status]")
    expect(spoken).to_have_text("Running")
    context.close()

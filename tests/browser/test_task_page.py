"""
The page of a task in a real Chromium: tree, timeline, log, and what can be done there.

Every page has the policy `default-src 'self'`, and a word in the console fails its test.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from cq.models import LogLine, Task
from tests.browser.accessibility import problems
from tests.browser.driver import RECORDER, SETTINGS, Site, shoot
from tests.integration.test_access import Person
from tests.integration.test_task_page import EVERYTHING, log_many
from tests.integration.watching import Tree
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

IMPORT = "tests.sampleapp.imports.import_csv"
SAY = "tests.browser.site_tasks.say"


def boss(page: Page, site: Site) -> None:
    person = Person("boss", *EVERYTHING, is_staff=True)
    cookie = {"name": "sessionid", "value": person.session, "url": site.url}
    page.context.add_cookies([cookie])  # type: ignore[list-item]


def start(page: Page, site: Site, name: str, *args: Any) -> str:
    """Start a task and open its page; returns the address."""
    page.goto(site.start(name, *args))
    id = page.locator("cq-task").get_attribute("task")
    address = f"{site.url}/cq/t/{id}/"
    page.goto(address)
    return address


def word(page: Page) -> Any:
    return page.locator("[data-word]")


def tab(page: Page, name: str) -> None:
    page.locator(".tp-tabs").get_by_role("link", name=name).click()


def test_a_page_is_patched_from_the_start_to_the_end(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    boss(page, site)
    start(page, site, IMPORT, 40, 0.15, [7, 23])
    expect(word(page)).to_have_text("Queued")
    expect(page.locator(".tp-why")).to_contain_text("No worker is running")
    worker_process(cq=SETTINGS)
    expect(word(page)).to_have_text("Waiting", timeout=10_000)
    fold = page.locator(".tp-fold")
    expect(fold.locator(".tp-name")).to_have_text("render_tile × 40")
    shoot(page, "task-page-running")
    tab(page, "Timeline")
    expect(page.locator(".tp-ran").first).to_be_visible()
    shoot(page, "task-page-timeline-running")
    tab(page, "Tree")
    expect(word(page)).to_have_text("Incomplete", timeout=30_000)
    expect(fold.locator(".tp-detail")).to_have_text("2 failed · 38 ok")
    expect(page.locator(".tp-node.is-failure")).to_have_count(2)
    expect(page.locator(".tp-cells rect")).to_have_count(40)
    expect(page.get_by_role("link", name="Retry failed subtasks")).to_be_visible()
    assert page.evaluate("sockets.length") == 1
    shoot(page, "task-page-tree")
    tab(page, "Timeline")
    shoot(page, "task-page-timeline")
    tab(page, "Log")
    shoot(page, "task-page-log")


def test_the_tree_is_moved_through_with_the_keyboard(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    boss(page, site)
    start(page, site, IMPORT, 25, 0.0)
    expect(word(page)).to_have_text("Success", timeout=20_000)
    rows = page.get_by_role("treeitem")
    expect(rows).to_have_count(5)
    rows.first.focus()
    page.keyboard.press("End")
    expect(rows.last).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(rows).to_have_count(30)
    page.keyboard.press("ArrowDown")
    expect(rows.nth(5)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(rows.nth(4)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(rows).to_have_count(5)
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/cq/t/[0-9a-f-]{36}/$"))
    expect(page.locator(".cq-crumbs")).to_contain_text("import_csv")
    expect(page.get_by_role("heading", level=1)).to_contain_text("parse")


@pytest.fixture
def tree(rows_beside_a_browser: None, site: Site, page: Page) -> Tree:
    boss(page, site)
    return Tree(func_name="shop.tasks.import_csv")


def numbers(page: Page) -> list[int]:
    return [int(text) for text in page.locator(".tp-log .tp-number").all_text_contents()]


def test_the_last_lines_come_at_once_and_older_ones_on_the_way_up(
    site: Site, page: Page, tree: Tree
) -> None:
    log_many(tree, 3000)
    page.goto(f"{site.url}/cq/t/{tree.id}/#log")
    assert numbers(page) == list(range(2001, 3001))
    log = page.locator(".tp-log")
    assert log.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 24
    expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "true")
    log.evaluate("box => { box.scrollTop = 100 }")
    wait_until(lambda: numbers(page)[0] == 1501, timeout=10)
    expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Jump to the end").click()
    expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "true")


def test_a_line_has_an_address_wherever_it_stands(site: Site, page: Page, tree: Tree) -> None:
    log_many(tree, 3000)
    page.goto(f"{site.url}/cq/t/{tree.id}/#L120")
    line = page.locator("#L120")
    expect(line).to_be_in_viewport()
    expect(line).to_have_class(re.compile("is-target"))
    page.locator("#L130 .tp-number").click()
    expect(page.locator("#L130")).to_have_class(re.compile("is-target"))
    assert page.url.endswith("#L130")


def test_a_search_finds_lines_that_were_never_loaded(site: Site, page: Page, tree: Tree) -> None:
    log_many(tree, 3000)
    page.goto(f"{site.url}/cq/t/{tree.id}/#log")
    page.get_by_role("searchbox").fill("LINE 77 of")
    expect(page.locator("[data-hits]")).to_have_text("1 line")
    expect(page.locator(".tp-log mark")).to_have_text("line 77 of")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_text("No line matches.")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Level").select_option("40")
    expect(page.locator("[data-hits]")).to_have_text("500+ lines")
    page.locator("#L2999 .tp-number").click()
    expect(page.locator("#L2999")).to_have_class(re.compile("is-target"))


def test_a_paused_log_counts_what_comes(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    boss(page, site)
    start(page, site, "tests.sampleapp.tasks.log_lines", 60, 0.1)
    tab(page, "Log")
    expect(page.locator("#L5")).to_be_attached(timeout=10_000)
    page.get_by_role("button", name="Pause").click()
    count = len(numbers(page))
    expect(page.get_by_role("button", name=re.compile(r"Paused · \d+ new"))).to_be_visible()
    assert len(numbers(page)) == count
    page.get_by_role("button", name="Paused").click()
    expect(word(page)).to_have_text("Success", timeout=20_000)
    assert numbers(page) == list(range(1, 61))


def test_the_pill_pauses_everything_and_goes_on_without_a_gap(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    boss(page, site)
    start(page, site, "tests.sampleapp.tasks.log_lines", 80, 0.1)
    tab(page, "Log")
    pill = page.locator("button[data-cq-pill]")
    expect(pill).to_have_text("live", timeout=10_000)
    expect(page.locator("#L5")).to_be_attached(timeout=10_000)
    pill.click()
    expect(pill).to_have_text("paused")
    wait_until(lambda: page.evaluate("sockets[0].readyState") == 3, timeout=5)
    shown = len(numbers(page))
    wait_until(lambda: LogLine.objects.count() > shown + 5, timeout=10)
    assert len(numbers(page)) == shown
    pill.click()
    expect(word(page)).to_have_text("Success", timeout=20_000)
    expect(pill).to_be_hidden()
    assert numbers(page) == list(range(1, 81))


def test_what_a_reader_unfolds_stays_while_the_reason_is_asked_for_again(
    site: Site, page: Page, tree: Tree
) -> None:
    Task.objects.filter(pk=tree.id).update(args=[{"a": [1, 2]}])
    page.goto(f"{site.url}/cq/t/{tree.id}/#data")
    opened = page.locator(".tp-json details").first
    opened.locator("summary").first.click()
    expect(opened).not_to_have_attribute("open", "")
    page.get_by_role("link", name="Revoke").focus()
    with page.expect_response("**/part") as answer:
        pass
    assert answer.value.ok
    expect(page.locator(".tp-why")).to_contain_text("No worker is running")
    Task.objects.filter(pk=tree.id).update(run_at=timezone.now() + timedelta(hours=2))
    expect(page.locator(".tp-why")).to_contain_text("It is due in", timeout=10_000)
    expect(opened).not_to_have_attribute("open", "")
    expect(page.get_by_role("link", name="Revoke")).to_be_focused()


def test_who_is_logged_out_is_told_so_and_nothing_is_asked_any_more(
    site: Site, page: Page, tree: Tree
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # Between the end of the session and its being noticed a 404 would be a word in the console.
    page.route("**/part", lambda route: route.fulfill(body=""))
    page.goto(f"{site.url}/cq/t/{tree.id}/")
    pill = page.locator("button[data-cq-pill]")
    expect(pill).to_have_attribute("data-cq-pill", "live", timeout=10_000)
    Session.objects.all().delete()
    page.evaluate("sockets.at(-1).close()")
    expect(pill).to_have_text("load again", timeout=10_000)
    before = len(asked)
    page.wait_for_timeout(4500)
    assert len(asked) == before
    pill.click()
    page.wait_for_url("**/login/**")


def test_what_is_to_be_done_is_asked_first(
    site: Site, worker_process: WorkerFactory, page: Page
) -> None:
    worker_process(cq=SETTINGS)
    boss(page, site)
    start(page, site, IMPORT, 30, 3)
    expect(word(page)).to_have_text("Waiting", timeout=10_000)
    page.get_by_role("link", name="Revoke").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("will be asked to stop")
    expect(dialog.get_by_role("link", name="Back")).to_be_focused()
    shoot(page, "task-page-confirm")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("link", name="Revoke")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(word(page)).to_have_text("Revoked", timeout=10_000)
    expect(page.get_by_role("link", name="Revoke")).to_have_count(0)
    expect(page.get_by_role("link", name="Run again")).to_be_visible()


def test_what_a_task_says_stays_text(site: Site, worker_process: WorkerFactory, page: Page) -> None:
    hostile = '\x1b[31m<img src=x onerror="alert(1)"><script>alert(2)</script>'
    worker_process(cq=SETTINGS)
    boss(page, site)
    address = start(page, site, SAY, hostile)
    expect(word(page)).to_have_text("Success", timeout=10_000)
    for _ in range(2):
        for name in ("Log", "Data", "Timeline", "Tree"):
            tab(page, name)
        assert page.locator(".tp img, .tp script").count() == 0
        assert page.locator(".tp-text").inner_text() == hostile.removeprefix("\x1b[31m")
        expect(page.locator(".tp-text span span")).to_have_attribute("style", re.compile("color"))
        page.goto(address + "#log")


def test_without_javascript_it_can_be_read_and_used(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    boss(page, site)
    tree = Tree(func_name="shop.tasks.import_csv")
    tree.child()
    tree.log("one", "\x1b[31mtwo")
    page.goto(f"{site.url}/cq/t/{tree.id}/")
    for text in ("import_csv", "Queued", "one", "two", "No worker is running"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.get_by_role("link", name="Revoke").click()
    expect(page.get_by_text("2 tasks will never start")).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator(".tp-state")).to_contain_text("Revoked")
    context.close()


def test_the_admin_has_it_under_the_same_policy(site: Site, page: Page, tree: Tree) -> None:
    child = tree.child()
    tree.log("one")
    page.goto(f"{site.url}/admin/cq/task/{tree.id}/live/")
    expect(page.get_by_role("treeitem")).to_have_count(1)
    tab(page, "Log")
    expect(page.locator(".tp-line")).to_have_count(1)
    tab(page, "Tree")
    page.get_by_role("link", name="row").click()
    page.wait_for_url(f"**/admin/cq/task/{child.pk}/live/")
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(word(page)).to_have_text("Revoked")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_using_it(
    site: Site, worker_process: WorkerFactory, browser: Browser, scheme: Any
) -> None:
    worker_process(cq=SETTINGS)
    context = browser.new_context(
        color_scheme=scheme, reduced_motion="reduce", bypass_csp=True, locale="en-GB"
    )
    context.add_init_script(RECORDER)
    page = context.new_page()
    boss(page, site)
    address = start(page, site, IMPORT, 40, 0.02, [7, 23])
    expect(word(page)).to_have_text("Incomplete", timeout=20_000)
    found = []
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("Log", "Timeline", "Data", "Attempts", "Tree"):
            tab(page, name)
            found += [f"{width} {name}: {one}" for one in problems(page)]
            shoot(page, f"page-{scheme}-{width}-{name.lower()}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} wide at {width}"
    failed = Task.objects.filter(status="F").first()
    assert failed is not None
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{site.url}/cq/t/{failed.pk}/#attempts")
    found += problems(page)
    shoot(page, f"page-{scheme}-failed")
    id = address.rstrip("/").rpartition("/")[2]
    page.goto(f"{site.url}/admin/cq/task/{id}/live/")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    found += [one for one in problems(page) if ".tp" in one or "cq-" in one]
    shoot(page, f"page-{scheme}-admin")
    page.goto(f"{address}do/retry_failed")
    found += problems(page)
    shoot(page, f"page-{scheme}-confirm")
    assert found == []
    assert LogLine.objects.exists()
    context.close()

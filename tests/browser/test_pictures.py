"""
The pictures of the documentation: light and dark, wide and on a phone of 320 pixels.

CQ_DOC_PICTURES names the folder that receives them, as docs/images is made: look at them before
they are kept. Without it the same pages are shown and nothing is written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.driver import RECORDER, SETTINGS, Site
from tests.browser.test_pages import furnish, log_in
from tests.browser.test_task_page import IMPORT, start, tab, word
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

Scheme = Literal["light", "dark"]
PHONE = 320
GAP = 16


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    context.add_init_script(RECORDER)
    log_in(context, site)
    yield context.new_page()
    context.close()


def look(page: Page, scheme: Scheme, width: int, height: int) -> None:
    """Be a screen of this size and theme; nothing may stick out."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    page.mouse.move(0, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def taken(page: Page) -> Image.Image:
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as shot:
        return shot.convert("RGB")


def keep(name: str, *pictures: Image.Image) -> None:
    """Write pictures as one, side by side."""
    if folder := os.environ.get("CQ_DOC_PICTURES"):
        beside(pictures).save(Path(folder) / f"{name}.png", optimize=True)


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    if len(pictures) == 1:
        return pictures[0]
    width = sum(one.width for one in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGBA", (width, max(one.height for one in pictures)))
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width + GAP
    return whole


def test_the_pages(site: Site, page: Page) -> None:
    furnish()
    for at, scheme, height, name in SCREENS:
        page.goto(f"{site.url}/cq/{at}")
        expect(page.locator("h1")).to_be_visible()
        look(page, scheme, 1280, height)
        for fold in page.get_by_text("Next five runs").all():
            fold.click()
        keep(name, taken(page))
    phones = []
    for at, scheme in PHONES:
        page.goto(f"{site.url}/{at}")
        look(page, scheme, PHONE, 720)
        phones.append(taken(page))
    keep("pages-phone", *phones)


SCREENS: tuple[tuple[str, Scheme, int, str], ...] = (
    ("", "light", 1000, "pages-overview"),
    ("", "dark", 1000, "pages-overview-dark"),
    ("tasks/", "light", 1000, "pages-tasks"),
    ("repeating/", "light", 860, "pages-repeating"),
)
PHONES: tuple[tuple[str, Scheme], ...] = (
    ("cq/", "light"),
    ("cq/tasks/", "dark"),
    ("cq/workers/", "light"),
    ("admin/cq/task/live/repeating/", "dark"),
)


def test_the_page_of_a_task(site: Site, worker_process: WorkerFactory, page: Page) -> None:
    worker_process(cq=SETTINGS)
    start(page, site, IMPORT, 40, 0.12, [7, 23])
    expect(word(page)).to_have_text("Incomplete", timeout=30_000)
    look(page, "light", 1280, 660)
    keep("task-page", taken(page))
    tab(page, "Timeline")
    look(page, "light", 1280, 660)
    keep("task-page-timeline", taken(page))
    tab(page, "Log")
    look(page, "dark", 1280, 800)
    keep("task-page-log", taken(page))
    phones = []
    shown: tuple[tuple[str, Scheme], ...] = (
        *(("Tree", "light"), ("Timeline", "dark"), ("Log", "light"), ("Data", "dark")),
    )
    for name, scheme in shown:
        tab(page, name)
        look(page, scheme, PHONE, 560)
        page.evaluate("document.querySelector('.tp-tabs').scrollIntoView()")
        page.evaluate("document.querySelector('[data-log]').scrollTop = 0")
        phones.append(taken(page))
    keep("task-page-phone", *phones)


def test_the_element(site: Site, worker_process: WorkerFactory, page: Page) -> None:
    worker_process(cq=SETTINGS)
    show: dict[str, Any] = {"show": "bar tree log", "actions": "revoke", "label": "Your import"}
    page.goto(site.start(IMPORT, 40, 0.5, [7], **show))
    expect(page.locator("cq-task .node.is-failure")).to_be_visible(timeout=30_000)
    bar = page.get_by_role("progressbar")
    wait_until(lambda: int(bar.get_attribute("aria-valuenow") or 0) >= 40, timeout=30)
    shots = []
    shown: tuple[tuple[Scheme, int], ...] = (("light", 480), ("dark", 480), ("dark", PHONE))
    for scheme, width in shown:
        look(page, scheme, width, 560)
        shots.append(taken(page))
    keep("element", *shots)

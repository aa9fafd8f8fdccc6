"""
What the demo owes whoever looks at it: pages that keep nobody out, and a heart that beats.

axe-core is injected, so these pages are opened with `bypass_csp`; that the policy holds is what
tests/browser/test_demo.py proves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.accessibility import problems
from tests.browser.test_demo import Demo, printed, running_demo
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(bypass_csp=True, reduced_motion="reduce") as context:
        yield context.new_page()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_using_it(
    demo: Demo, page: Page, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(demo.url)
    found = {"start": problems(page)}
    page.get_by_role("button", name="Print it").click()
    found["refusal"] = problems(page)
    page.get_by_role("button", name="Printer").click()
    page.goto(demo.url)
    page.locator("[name=torn]").check()
    page.get_by_role("button", name="Dunes").click()
    wait_until(lambda: printed(page) >= 3, timeout=40)
    found["running"] = problems(page)
    mend = page.get_by_role("button", name="Mend it, print only what failed")
    expect(mend).to_be_visible(timeout=60_000)
    found["torn"] = problems(page)
    mend.click()
    expect(page.locator("#open-report")).to_be_visible(timeout=60_000)
    found["finished"] = problems(page)
    page.get_by_role("link", name="Read the report").click()
    found["report"] = problems(page)
    assert found == {at: [] for at in found}


def test_a_heart_beats_every_minute(demo: Demo, page: Page) -> None:
    """A repeating task that a migration of the demo schedules; its last beat is on every page."""

    def beat() -> str | None:
        page.goto(demo.url)
        page.wait_for_timeout(500)
        found = re.search(r"last at \d\d:(\d\d:\d\d) UTC", page.locator("footer").inner_text())
        return found and found[1]

    assert wait_until(beat, timeout=90)
    assert page.locator(".beats i").count() >= 1

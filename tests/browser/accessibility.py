"""
What keeps people from using a page, as axe-core finds it.

axe-core comes with the package axe-playwright-python. It is injected, so the page has to be
opened with `bypass_csp`; that the policy holds is what the other tests prove.
"""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = ("serious", "critical")


def problems(page: Page) -> list[str]:
    """Every serious or critical finding on the page, with the element it is about."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]

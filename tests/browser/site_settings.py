"""The settings of the suite, with the pages of tests/browser/site.py."""

from __future__ import annotations

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE

ROOT_URLCONF = "tests.browser.site"
MIDDLEWARE = ["tests.browser.site.UnderPolicy", *MIDDLEWARE]

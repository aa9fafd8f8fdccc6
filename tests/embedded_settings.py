"""
The settings of the test project as a small site: a worker inside, and views that use it.
"""

from __future__ import annotations

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.embedded_urls"

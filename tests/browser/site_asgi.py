"""What daphne serves in the tests of <cq-task>: the suite's application, and static files."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.site_settings"

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from cq.asgi import application as pages

application = ASGIStaticFilesHandler(pages)

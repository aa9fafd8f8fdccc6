"""
The manage.py of the test project: worker tests start it as a real process.

CQ_TEST_HOST lets it run on a host of that name, so that nobody may judge by its pid.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if host := os.environ.get("CQ_TEST_HOST"):
        platform.node = lambda: host
    execute_from_command_line(sys.argv)

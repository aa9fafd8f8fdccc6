"""
The settings of the test project for Channels' own commands, such as `runworker`.

They need the app `channels`, which nothing else here does.
"""

from __future__ import annotations

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as APPS

INSTALLED_APPS = [*APPS, "channels"]

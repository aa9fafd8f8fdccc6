"""
Find the Chromium that drives the browser tests: `python tools/chromium.py` prints its path.

Any installed Chrome or Chromium will do, the one named by CQ_CHROMIUM first. As root on a
Debian system a missing one is installed with apt-get; everybody else gets one sentence with
the command. Never asks for a password. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "headless_shell",
)
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
MISSING = (
    "The browser tests found no Chrome or Chromium. Install one, for example with "
    "`apt-get install chromium`, or name yours: export CQ_CHROMIUM=/path/to/chrome"
)


def find() -> str | None:
    """The path of a Chrome or Chromium, or None."""
    named = os.environ.get("CQ_CHROMIUM")
    if named:
        return shutil.which(named)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    places = [Path(path) for path in APPLICATIONS]
    cache = Path.home() / ".cache" / "ms-playwright"
    places += sorted(cache.glob("chromium-*/chrome-linux*/chrome"), reverse=True)
    return next((str(path) for path in places if os.access(path, os.X_OK)), None)


def install() -> None:
    """As root on a Debian system: install the distribution's Chromium."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    print("Installing chromium with apt-get, for the browser tests …", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ("apt-get", "-q", "update"),
        ("apt-get", "-q", "-y", "install", "--no-install-recommends", "chromium"),
    ):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def main() -> int:
    if find() is None:
        install()
    found = find()
    if found is None:
        print(MISSING, file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
Run the demo in one process, without any other service. `make demo` calls this.

    python demo/run.py [--port PORT]

The work is in the management command `demo`; here its settings are chosen.
"""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    # This is the profile without services; the Procfile is the one with them.
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    execute_from_command_line([sys.argv[0], "demo", *sys.argv[1:]])

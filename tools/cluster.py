"""
`make cluster`: the demo as a cluster on this machine: 1 web process, 3 workers.

DATABASE_URL and REDIS_URL are honoured; for each one that is missing a private server is
started on a free loopback port, with its data in a temporary directory that goes away on
Ctrl-C. PORT picks the web port (a free one by default), WORKERS the number of workers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.service_guard import free_port  # noqa: E402
from tests.services import ServiceUnavailable, start  # noqa: E402
from tools.procfile import Runner, read  # noqa: E402

SERVICES = {"DATABASE_URL": "postgres", "REDIS_URL": "redis"}


def main() -> int:
    counts = {"worker": int(os.environ.get("WORKERS", "3"))}
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ)
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment["PYTHONUNBUFFERED"] = "1"
        environment.setdefault("PORT", str(free_port()))
        if "DEMO_DATA" not in environment:
            environment["DEMO_DATA"] = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cq-cluster-")
            )
        try:
            for variable, kind in SERVICES.items():
                if not environment.get(variable):
                    print(f"Starting a private {kind} …", flush=True)
                    server = start(kind)
                    stack.callback(server.close)
                    environment[variable] = server.url
        except ServiceUnavailable as error:
            print(error, file=sys.stderr)
            return 1
        is_private = not os.environ.get("DATABASE_URL")
        if not manage(environment, "migrate", "--verbosity", "0"):
            return 1
        url = f"http://127.0.0.1:{environment['PORT']}/"
        print(f"\n  Mosaic   {url}", flush=True)
        if is_private:
            password = environment["DJANGO_SUPERUSER_PASSWORD"] = secrets.token_urlsafe(9)
            who = ("--username", "admin", "--email", "admin@example.org")
            manage(environment, "createsuperuser", "--noinput", "--verbosity", "0", *who)
            print(f"  Admin    {url}admin/   user admin   password {password}")
        print("\nCtrl-C ends it.\n", flush=True)
        return Runner(
            read(ROOT / "Procfile", counts), directory=ROOT, environment=environment
        ).run()


def manage(environment: dict[str, str], *command: str) -> bool:
    """Run a command of the demo's manage.py and say whether it went well."""
    line = [sys.executable, "manage.py", *command]
    return subprocess.run(line, cwd=ROOT / "demo", env=environment).returncode == 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())

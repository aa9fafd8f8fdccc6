"""
Private servers: a PostgreSQL and a Redis (or Valkey) of our own, on free loopback ports.

`start("postgres")` and `start("redis")` return a running Server. Nothing is left behind,
however the caller ends: the server is the child of a guard process (service_guard.py) that
reads the caller's pipe, and the pipe closes with the caller, `kill -9` included. Standard
library only, so that tools/cluster.py and the benchmarks use it too. From a shell:

    python -m tests.services [--durable] COMMAND [ARGUMENT ...]

runs a command with DATABASE_URL and REDIS_URL naming two servers of its own; `--durable`
leaves PostgreSQL its fsync, as measurements want it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GUARD = Path(__file__).resolve().with_name("service_guard.py")


class ServiceUnavailable(RuntimeError):
    """A server cannot be started here; the text says which command makes it possible."""


class Server:
    """One private server, seen from the process that asked for it."""

    def __init__(
        self,
        kind: str,
        *,
        durable: bool = False,
        space: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        options = ["--durable"] * durable + [f"--space={space}"] * bool(space)
        self._guard = subprocess.Popen(
            [sys.executable, str(GUARD), kind, *options],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in the terminal is for the tests; the guard follows when they are done.
            start_new_session=True,
        )
        self._lock = threading.Lock()
        answer = self._read()
        self.url: str = answer["url"]
        self.pid: int = answer["pid"]

    def kill(self) -> None:
        """End the server with SIGKILL, as a machine that loses power would."""
        self._ask("kill")

    def halt(self) -> None:
        """Shut the server down in order; `resume()` starts it on the same port and data."""
        self._ask("halt")

    def resume(self) -> None:
        """Start a server again that was killed, halted or gave up, at the same address."""
        self.pid = self._ask("resume")["pid"]

    def fill(self) -> None:
        """Leave not a byte free on its file system; it was started with a `space`."""
        self._ask("fill")

    def free(self) -> None:
        """Give back what `fill()` took."""
        self._ask("free")

    def close(self) -> None:
        """End the server and delete its data. A second call does nothing."""
        if self._guard.stdin and not self._guard.stdin.closed:
            self._guard.stdin.close()
        self._guard.wait(timeout=30)
        if self._guard.stdout:
            self._guard.stdout.close()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._guard.stdin is not None
        with self._lock:
            self._guard.stdin.write(command + "\n")
            self._guard.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        answer: dict[str, Any] = (
            json.loads(line) if line else {"error": f"The guard of the private {self.kind} ended."}
        )
        if "error" in answer:
            self.close()
            raise ServiceUnavailable(answer["error"])
        return answer


def start(
    kind: str,
    *,
    durable: bool = False,
    space: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Server:
    """
    Start a private "postgres" or "redis"; `durable` keeps PostgreSQL's fsync on.

    With a `space` its data lie on a file system of so many MiB, which takes root; the
    `environment` is added to its own.
    """
    return Server(kind, durable=durable, space=space, environment=environment)


def run(command: Iterable[str], *, durable: bool = False) -> int:
    """Run a command beside two servers of its own and return its exit code."""
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ)
        for variable, kind in (("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")):
            server = start(kind, durable=durable and kind == "postgres")
            stack.callback(server.close)
            environment[variable] = server.url
        return subprocess.run([*command], env=environment).returncode


if __name__ == "__main__":
    arguments = sys.argv[1:]
    is_durable = arguments[:1] == ["--durable"]
    sys.exit(run(arguments[is_durable:], durable=is_durable))

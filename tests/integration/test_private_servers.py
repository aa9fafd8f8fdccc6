"""The private servers of the tests answer, survive faults on purpose, and never outlive us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.architecture.source import ROOT
from tests.services import start
from tests.waiting import wait_until

OWNER = """
import sys
from tests.services import start
server = start("redis")
print(server.pid, flush=True)
sys.stdin.read()
"""


def accepts(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=1):
            return True
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(params=["postgres", "redis"])
def server(request):
    server = start(request.param)
    yield server
    server.close()


def test_a_server_comes_back_at_the_same_address(server):
    first = server.pid
    server.kill()
    # A child that was forked just before holds the socket for a moment.
    wait_until(lambda: not accepts(server.url))

    server.resume()

    assert accepts(server.url)
    assert server.pid != first
    server.close()
    assert not accepts(server.url)


def test_a_server_ends_with_an_owner_that_is_killed():
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(owner.stdout.readline())
    assert is_alive(pid)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    wait_until(lambda: not is_alive(pid))
    owner.stdin.close()
    owner.stdout.close()

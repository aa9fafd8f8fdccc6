"""`cq_runworker -p 2` with real workers: rows, deaths, signals, probes."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers import WorkerFactory, WorkerProcess

WaitUntil = Callable[..., Any]


def pids(worker: WorkerProcess) -> set[int]:
    return {row.pid for row in worker.rows()}


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def two_ports() -> int:
    """The first of two neighbouring free ports."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except OSError:
                continue


def test_two_processes_work_and_one_that_dies_is_replaced(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("-p", "2", "--grace", "5", processes=2)
    before = pids(worker)
    assert worker.pid not in before
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(pids(worker) - before) == 1, timeout=30)
    assert worker.stop() == 0


def test_workers_end_with_their_supervisor(
    worker_process: WorkerFactory, wait_until: WaitUntil
) -> None:
    worker = worker_process("-p", "2", "--grace", "2", processes=2)
    worker.process.kill()
    wait_until(lambda: not worker.rows(), timeout=20)


def test_each_process_answers_probes_on_its_own_port(
    worker_process: WorkerFactory, wait_until: WaitUntil, two_ports: int
) -> None:
    worker = worker_process(
        *("-p", "2", "--grace", "5", "--health", f"127.0.0.1:{two_ports}"), processes=2
    )
    for port in (two_ports, two_ports + 1):
        assert get(port, "/livez") == (200, "alive\n")
        wait_until(lambda port=port: get(port, "/readyz")[0] == 200)
        assert get(port, "/metrics")[0] == 404
    assert worker.stop() == 0

"""The dispatcher on a real Redis: latency, outages, forks, and the exit of a process."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgpack
import pytest
import redis

from cq.transport.dispatcher import Dispatcher
from tests.services import Server

KEY = "cq:cq-tasks"
WaitUntil = Callable[..., Any]


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def dispatcher(use_layers: Any) -> Iterator[Dispatcher]:
    use_layers("redis")
    dispatcher = Dispatcher()
    yield dispatcher
    dispatcher.close(1)


def rung(client: Any) -> list[str]:
    """The ids of every bell in Redis, in the order in which they were sent."""
    messages = [msgpack.unpackb(raw[12:]) for raw in client.zrange(KEY, 0, -1)]
    return [task_id for message in messages for task_id in message["ids"]]


def hexes(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


def test_a_bell_arrives_at_once(dispatcher: Dispatcher, client: Any) -> None:
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    waits = []
    for task_id in hexes(20):
        client.delete(KEY)
        since = time.perf_counter()
        dispatcher.ring("default", [task_id])
        assert client.bzpopmin(KEY, timeout=5)
        waits.append(time.perf_counter() - since)
    assert sorted(waits)[10] < 0.01


def test_a_burst_costs_the_caller_microseconds_and_redis_few_messages(
    dispatcher: Dispatcher, client: Any
) -> None:
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    costs = []
    for task_id in hexes(2000):
        since = time.thread_time_ns()
        dispatcher.ring("default", [task_id])
        costs.append(time.thread_time_ns() - since)
    assert dispatcher.flush(5)
    assert sorted(costs)[1000] < 20_000, "nanoseconds of the caller's own processor time"
    assert client.zcard(KEY) < 200


def test_eight_threads_ring_and_no_id_is_lost(dispatcher: Dispatcher, client: Any) -> None:
    ids = hexes(400)

    def ring(part: list[str]) -> None:
        for task_id in part:
            dispatcher.ring("default", [task_id])

    threads = [threading.Thread(target=ring, args=(ids[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.flush(5)
    assert sorted(rung(client)) == ids


def test_events_reach_a_group_of_the_pubsub_layer(dispatcher: Dispatcher, client: Any) -> None:
    listener = client.pubsub()
    listener.subscribe("asgi__group__cq.workers")
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    dispatcher.send_group("cq.workers", {"type": "cq.event", "n": 1})
    message = listener.get_message(timeout=5)
    assert msgpack.unpackb(message["data"][0:]) == {"type": "cq.event", "n": 1}
    listener.close()


def test_a_redis_that_dies_and_returns(
    redis_server: Server,
    settings: Any,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cq.transport")
    settings.CHANNEL_LAYERS = {
        "cq": {"BACKEND": "cq.layers.RedisLayer", "CONFIG": {"hosts": [redis_server.url]}}
    }
    dispatcher = Dispatcher()
    dispatcher.ring("default", hexes(1))
    assert dispatcher.flush(5)
    redis_server.kill()
    for task_id in hexes(50):
        dispatcher.ring("default", [task_id])
    wait_until(lambda: dispatcher.stats()["layer_failures"] >= 2)
    redis_server.resume()
    wait_until(lambda: dispatcher.stats()["messages"] >= 2, timeout=5)
    with redis.Redis.from_url(redis_server.url) as client:
        assert rung(client) == hexes(50)
    assert len(caplog.messages) == 2
    assert "works again" in caplog.messages[1]
    dispatcher.close(1)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose system takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers_holds_nobody_up(settings: Any, silent_port: int) -> None:
    settings.CHANNEL_LAYERS = {
        "cq": {
            "BACKEND": "cq.layers.RedisLayer",
            "CONFIG": {"hosts": [f"redis://127.0.0.1:{silent_port}"]},
        }
    }
    dispatcher = Dispatcher()
    since = time.perf_counter()
    for task_id in hexes(100):
        dispatcher.ring("default", [task_id])
    assert time.perf_counter() - since < 0.5
    assert not dispatcher.flush(0.2)
    dispatcher.close(0.5)
    assert time.perf_counter() - since < 2


# --- whole processes ----------------------------------------------------------------------------

HEADER = """
import os, sys, warnings
from django.conf import settings
settings.configure(
    CHANNEL_LAYERS={"cq": {"BACKEND": "cq.layers.RedisLayer", "CONFIG": {"hosts": [URL]}}}, CQ={}
)
from cq.transport import dispatcher
"""


def run_script(url: str, body: str, *flags: str) -> subprocess.CompletedProcess[str]:
    script = HEADER.replace("URL", repr(url)) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, *flags, "-c", script],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path(__file__).resolve().parents[2],
    )


def by_name(url: str) -> str:
    """The same server by a name that has to be looked up."""
    return f"redis://localhost:{urlsplit(url).port}"


def test_a_script_that_ends_right_after_ringing_has_rung(redis_url: str, client: Any) -> None:
    done = run_script(by_name(redis_url), "dispatcher.ring('default', ['0' * 32])")
    assert (done.returncode, done.stderr) == (0, "")
    assert rung(client) == ["0" * 32]


def test_a_bell_rung_while_the_interpreter_ends_raises_nothing(redis_url: str, client: Any) -> None:
    """Python 3.12 starts no thread any more by then; older ones may still ring."""
    body = """
    import atexit
    atexit.register(lambda: (dispatcher.ring('default', ['0' * 32]), dispatcher.flush(1)))
    """
    done = run_script(redis_url, body)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_exit_does_not_wait_for_a_dead_server(client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    body = """
    import time
    dispatcher.ring('default', ['0' * 32])
    since = time.monotonic()
    import atexit
    atexit._run_exitfuncs()
    assert time.monotonic() - since < 1.5, time.monotonic() - since
    """
    done = run_script(f"redis://127.0.0.1:{port}", body)
    assert done.returncode == 0, done.stderr


def test_a_forked_child_rings_for_itself_and_leaves_its_parent_alone(
    redis_url: str, client: Any
) -> None:
    body = """
    import gc
    dispatcher.ring('default', ['a' * 32])
    assert dispatcher.flush(5)
    pid = os.fork()
    if pid == 0:
        dispatcher.ring('default', ['b' * 32])
        assert dispatcher.flush(5)
        gc.collect()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for _ in range(3):
        dispatcher.ring('default', ['c' * 32])
        assert dispatcher.flush(5)
    """
    done = run_script(redis_url, body, "-X", "dev")
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr
    assert rung(client) == ["a" * 32, "b" * 32, *["c" * 32] * 3]

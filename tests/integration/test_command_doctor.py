"""cq_doctor: all is well where it is, and each part is found when it is broken on purpose."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from cq.models import Task, Worker
from cq.tasks import answer
from cq.terminal.socket_talk import SocketFailure, address_of
from cq.worker.embedded import embedded_worker
from tests.conftest import Database, Layers
from tests.workers import ROOT, WorkerFactory

PARTS = ("database", "layer", "pages", "worker", "socket")


def free_port() -> int:
    """A port of this host on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def examine(*options: str) -> tuple[dict[str, str], int]:
    """Run the doctor; return what it said of each part, and its exit code."""
    out, code = io.StringIO(), 0
    try:
        call_command("cq_doctor", *options, stdout=out, stderr=out)
    except SystemExit as exit:
        code = int(exit.code or 0)
    text = out.getvalue()
    said = re.finditer(r"^(\w+) +(?:ok|note|BROKEN|skipped) .*(?:\n {28}.*)*", text, re.MULTILINE)
    assert ("All is well." in text) == (code == 0), text
    return {found[1]: found[0] for found in said}, code


def only_broken(said: dict[str, str]) -> str:
    """The one part that is broken, with its remedy."""
    broken = [block for block in said.values() if " BROKEN " in block]
    assert len(broken) == 1, said
    assert "\n" in broken[0], "no remedy"
    return broken[0]


def working(**changes: Any) -> Worker:
    """A worker's row without a worker."""
    return Worker.objects.create(**{"names": [answer.name], "hostname": "here", **changes})


@pytest.fixture
def answered(worker_process: WorkerFactory) -> None:
    """A worker that answers."""
    worker_process("-c", "2")


@contextmanager
def served(factory: WorkerFactory, folder: Path) -> Iterator[str]:
    """A real daphne in front of the suite's application."""
    log = folder / "daphne.log"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        **factory.environment,
        **factory.layer_environment(),
    }
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "cq.asgi:application"], cwd=ROOT, env=environment, stderr=output
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def is_listening(url: str) -> bool:
    parts = address_of(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


# --- well -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("answered")
def test_all_is_well_where_everything_runs(
    worker_process: WorkerFactory, tmp_path: Path, wait_until: Any
) -> None:
    said, code = examine()
    assert code == 0, said
    assert tuple(said) == PARTS
    for block in said.values():
        assert re.match(r"\w+ +ok +\d+ ms  ", block)
    probe = Task.objects.get()
    assert probe.status == Task.STATUS_SUCCESS
    assert probe.result_expiry is not None
    assert probe.result_expiry <= timezone.now() + timedelta(minutes=1)
    with served(worker_process, tmp_path) as url:
        wait_until(lambda: is_listening(url), timeout=20)
        said, code = examine("--url", url)
        assert code == 0, said
        assert f"at {url.replace('http', 'ws')}/cq/ws" in said["socket"]
        said, code = examine("--url", f"{url}/elsewhere")
        assert code == 1
        assert "to the handshake" in only_broken(said)


@pytest.mark.usefixtures("answered")
def test_layers_that_are_not_there_are_noted(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    said, code = examine()
    assert code == 0
    assert "workers find tasks by polling" in said["layer"]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    said, code = examine()
    assert code == 0
    assert "in memory" in said["pages"]


@pytest.mark.usefixtures("database")
def test_no_worker_starts_in_the_process_that_asks(settings: Any) -> None:
    settings.CQ = {**settings.CQ, "EMBEDDED": True}
    said, code = examine()
    assert code == 1
    assert only_broken(said).startswith("worker")
    assert embedded_worker._runner is None
    assert not Worker.objects.exists()


# --- broken on purpose ----------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
def test_a_wrong_setting(settings: Any) -> None:
    settings.CQ = {"SLOTZ": 3}
    said, code = examine()
    assert code == 1
    assert "Did you mean 'SLOTS'?" in only_broken(said)


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_database_that_does_not_answer(kind: str, tmp_path: Path) -> None:
    url = f"postgresql://cq@127.0.0.1:{free_port()}/cq"
    ended = subprocess.run(
        [sys.executable, "tests/manage.py", "cq_doctor", "--timeout", "2"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "CQ_TEST_DATABASE_URL": url if kind == "postgres" else f"sqlite:///{tmp_path}/no/no",
            "CQ_TEST_LAYER": "memory",
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"database +BROKEN .*\n +Start it, or correct DATABASES", ended.stdout)
    assert re.search(r"worker +skipped", ended.stdout)
    assert re.search(r"socket +skipped", ended.stdout)
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.usefixtures("database")
def test_a_migration_that_is_missing() -> None:
    name = max(path.stem for path in (ROOT / "cq" / "migrations").glob("0*.py"))

    def belongs(app: str, before: str) -> None:
        sql = "UPDATE django_migrations SET app = %s WHERE app = %s AND name = %s"
        with connection.cursor() as cursor:
            cursor.execute(sql, [app, before, name])

    belongs("hidden", before="cq")
    try:
        said, code = examine()
    finally:
        belongs("cq", before="hidden")
    assert code == 1
    assert name in only_broken(said)
    assert "manage.py migrate" in said["database"]


@pytest.mark.usefixtures("database")
def test_clocks_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = timezone.now() + timedelta(seconds=7)
    monkeypatch.setattr("cq.terminal.doctor.database_now", lambda using: ahead)
    said, _ = examine()
    assert "7.0 s apart" in only_broken(said)


@pytest.mark.parametrize(("part", "alias"), [("layer", "cq"), ("pages", "default")])
def test_a_layer_that_does_not_answer(
    part: str, alias: str, use_layers: Layers, settings: Any, database: Database
) -> None:
    use_layers("redis")
    layers = dict(settings.CHANNEL_LAYERS)
    hosts = {"hosts": [f"redis://127.0.0.1:{free_port()}"]}
    layers[alias] = {**layers[alias], "CONFIG": hosts}
    settings.CHANNEL_LAYERS = layers
    said, code = examine("--timeout", "1")
    assert code == 1
    assert f"{part} " in said[part]
    assert "BROKEN" in said[part]
    assert f"CHANNEL_LAYERS['{alias}']" in said[part]
    other = {"layer": "pages", "pages": "layer"}[part]
    assert " ok " in said[other]


@pytest.mark.usefixtures("database")
def test_a_layer_that_nobody_configured(settings: Any) -> None:
    settings.CQ = {**settings.CQ, "CHANNEL_LAYER": "elsewhere"}
    said, _ = examine()
    assert "CHANNEL_LAYERS has no 'elsewhere'" in said["layer"]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        (None, "No worker lives."),
        ({"alive": False}, "No worker lives."),
        ({"beat_at": timezone.now() - timedelta(hours=1)}, "no heartbeat for 30 s"),
        ({"queues": ["mail"]}, "takes the queue 'default'"),
        ({"names": ["shop.tasks.other"]}, "older release"),
        ({}, "a task for it was Queued after 0.3 s"),
    ],
)
def test_a_worker_that_cannot_answer(worker: dict[str, Any] | None, problem: str) -> None:
    if worker is not None:
        working(**worker)
    said, code = examine("--timeout", "0.3")
    assert code == 1
    assert problem in only_broken(said)
    assert said["worker"].startswith("worker")
    assert " ok " in said["socket"], "the socket shows a task that waits"
    assert Task.objects.get().status == Task.STATUS_REVOKED


@pytest.mark.parametrize(
    ("application", "problem"),
    [
        ("nowhere.asgi.application", "ASGI_APPLICATION cannot be used"),
        ("tests.sampleapp.asgi_apps.only_http", "The application raised ValueError"),
        ("tests.sampleapp.asgi_apps.closing", "The socket was closed with code 1008"),
        ("tests.sampleapp.asgi_apps.silent", "did not answer within 2 s"),
        ("tests.sampleapp.asgi_apps.babbling", "which is not a frame"),
    ],
)
@pytest.mark.usefixtures("answered")
def test_a_socket_that_is_not_served(application: str, problem: str, settings: Any) -> None:
    settings.ASGI_APPLICATION = application
    said, code = examine("--timeout", "2")
    assert code == 1
    assert problem in only_broken(said)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "'HTTP/1.1 404 Not Found' to the handshake"),
        (b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: x\r\n\r\n", "not that of a WebSocket"),
        (b"SSH-2.0-OpenSSH\x1b[2J\r\n\r\n", "'SSH-2.0-OpenSSH' to the handshake"),
        (b"x" * 200_000, "ended the connection"),
        (b"", "ended the connection"),
    ],
)
@pytest.mark.usefixtures("answered")
def test_a_server_that_is_none_of_ours(reply: bytes, problem: str) -> None:
    with answering(reply) as url:
        said, code = examine("--timeout", "5", "--url", url)
    assert code == 1
    assert problem in only_broken(said)


@pytest.mark.usefixtures("answered")
def test_a_server_that_is_not_there() -> None:
    said, code = examine("--url", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "cannot be reached" in only_broken(said)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("options", [["--timeout", "0"], ["--timeout", "nan"], ["-Q", "a b/c"]])
def test_odd_options_are_refused(options: list[str]) -> None:
    with pytest.raises(CommandError, match=r"Expected seconds from 0.1 to 3600|no queue name"):
        examine(*options)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("example.org", "ws://example.org/cq/ws"),
        ("https://example.org/", "wss://example.org/cq/ws"),
        ("wss://example.org:8443/live/cq/ws", "wss://example.org:8443/live/cq/ws"),
    ],
)
def test_an_address_may_be_that_of_the_site(url: str, address: str) -> None:
    assert address_of(url).geturl() == address


@pytest.mark.parametrize("url", ["ftp://example.org", "http://", "http://host:port", "\x1b[2J"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SocketFailure, match="is not the address of a site"):
        address_of(url)


def test_nothing_is_left_of_a_conversation_that_was_given_up() -> None:
    """A stand-in for the loop's own check: no task outlives `asyncio.run`."""
    from cq.terminal.socket_talk import ask_application

    ended = threading.Event()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def give_up() -> None:
        async with asyncio.timeout(0.05):
            await ask_application(silent, "http://localhost", Task().id, "token")

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert ended.is_set()

"""The health server over real connections, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cq.errors import InvalidOption
from cq.worker.health import HealthProbe, serve


@asynccontextmanager
async def serving(probe: HealthProbe) -> AsyncIterator[int]:
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        server = group.create_task(serve("127.0.0.1", 0, probe, bound.set_result))
        yield await bound
        server.cancel()


async def ask(port: int, request: bytes) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: worker\r\nUser-Agent: kube-probe/1.31\r\n\r\n".encode()


async def test_alive_and_ready() -> None:
    probe = HealthProbe()
    async with serving(probe) as port:
        assert await ask(port, get("/livez")) == (200, "alive\n")
        assert await ask(port, get("/readyz?verbose=1")) == (200, "claiming\n")
        probe.drain()
        assert await ask(port, get("/readyz")) == (503, "draining\n")
        assert await ask(port, get("/livez")) == (200, "alive\n")
        assert await ask(port, b"HEAD /livez HTTP/1.0\r\n\r\n") == (200, "")


@pytest.mark.parametrize(
    "request_",
    [
        get("/"),
        get("/metrics"),
        get("/livez/../etc/passwd"),
        get("http://elsewhere/livez"),
        b"POST /livez HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00 tls hello\r\n\r\n",
    ],
)
async def test_anything_else_is_not_found(request_: bytes) -> None:
    async with serving(HealthProbe()) as port:
        status, body = await ask(port, request_)
        assert status == 404
        assert body in ("", "not found; ask /livez or /readyz\n")


async def test_an_endless_request_is_cut_short() -> None:
    async with serving(HealthProbe()) as port:
        status, _ = await ask(port, b"GET /livez HTTP/1.1\r\n" + b"x" * 5000)
        assert status == 431


async def test_a_prober_that_hangs_up_or_hangs_does_no_harm() -> None:
    async with serving(HealthProbe()) as port:
        _, gone = await asyncio.open_connection("127.0.0.1", port)
        gone.close()
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        silent.write(b"GET /li")
        assert (await ask(port, get("/livez")))[0] == 200
    silent.close()  # the server has ended without waiting for it


async def test_a_taken_port_is_one_sentence() -> None:
    async with serving(HealthProbe()) as port:
        with pytest.raises(InvalidOption, match=r"--health") as caught:
            await serve("127.0.0.1", port, HealthProbe())
        assert f"127.0.0.1:{port}" in str(caught.value)

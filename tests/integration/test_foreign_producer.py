"""docs/reference/messages.md, executed: its rows are tasks, its bell is heard."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from django.db import connection

from cq.definition.status import Status
from cq.layers import RedisLayer
from cq.models import Task
from cq.transport.messages import ids_of
from cq.worker.receiver import Receiver

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "messages.md"

ID = "019aa2b4-7c1e-7d3a-9b51-0f6a4c2d8e90"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_shortest_row_is_a_queued_task(database: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(snippets("sql")[0])
    task = Task.objects.get()
    assert task.status == Status.QUEUED
    assert (task.func_name, task.args, task.kwargs) == ("sampleapp.echo", [], {})
    assert (task.queue, task.priority, task.root_uuid) == ("default", 0, task.id)


def test_the_longest_row_says_what_it_means(database: Any) -> None:
    sql = snippets("sql")[1]
    if connection.vendor == "sqlite":
        sql = re.sub(r"now\(\) \+ interval '1 (\w+)'", r"datetime('now', '+1 \1')", sql)
        sql = sql.replace(
            "019aa2b4-7c1e-7d3a-9b51-0f6a4c2d8e90", "019aa2b47c1e7d3a9b510f6a4c2d8e90"
        )
    with connection.cursor() as cursor:
        cursor.execute(sql)
    task = Task.objects.get()
    assert task.id == UUID(ID)
    assert (task.args, task.priority, task.max_retries, task.timeout) == (["hello"], 10, 3, 60)
    assert (task.result_ttl, task.owner) == (86400, "42")
    assert task.submitted < task.run_at < task.expires_at


def test_every_column_of_the_table_exists() -> None:
    columns = re.findall(r"^\| `(\w+)` \| .* \| .* \|$", PAGE.read_text(), re.MULTILINE)
    assert "func_name" in columns
    assert set(columns) <= {field.column for field in Task._meta.concrete_fields}


async def test_the_bell_of_the_page_is_heard(redis_url: str) -> None:
    namespace: dict[str, Any] = {}
    exec(snippets("python")[0], namespace)
    message = json.loads(snippets("json")[0])
    layer = RedisLayer(hosts=[redis_url])
    bells: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def ring() -> None:
        with redis.Redis.from_url(redis_url) as client:
            namespace["ring"](client, message["ids"])

    def empty() -> None:
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()

    await asyncio.to_thread(empty)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(Receiver(layer, "default", bells.put_nowait).run())
        await asyncio.to_thread(ring)
        heard = await bells.get()
        running.cancel()
    await layer.close_pools()
    assert heard == message
    assert ids_of(heard) == [UUID(message["ids"][0])]

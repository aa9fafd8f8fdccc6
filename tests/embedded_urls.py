"""Views of a small site with an embedded worker: one enqueues, one writes, one reads."""

from __future__ import annotations

import json

from django.http import HttpRequest, JsonResponse
from django.urls import path

from cq.models import LogLine, Task
from cq.web.tokens import watch_token
from tests.sampleapp.models import Note
from tests.sampleapp.trouble import log_slowly


def enqueue(request: HttpRequest) -> JsonResponse:
    """Enqueue so many tasks that log, each for so long; anybody may watch them."""
    count, lines, seconds = json.loads(request.GET["call"])
    tasks = [log_slowly.delay(lines, seconds) for _ in range(count)]
    return JsonResponse({str(task.id): watch_token(task, ["log"]) for task in tasks})


def write(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"note": Note.objects.create(text="from a view").pk})


def read(request: HttpRequest) -> JsonResponse:
    tasks = list(Task.objects.order_by("pk").values("status", "error", "result", "attempts"))
    logging = LogLine.objects.values("root").distinct().count()
    return JsonResponse({"tasks": tasks, "logging": logging, "lines": LogLine.objects.count()})


urlpatterns = [path("enqueue", enqueue), path("write", write), path("read", read)]

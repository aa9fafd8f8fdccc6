"""
A small site around <cq-task>: pages under `default-src 'self'`, for a real daphne.

`/start/NAME?args=[…]` enqueues a task and leads to `/show/ID?show=bar log`, a page
with the three lines that the documentation promises.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template import Context, Template
from django.urls import path
from django.utils.http import urlencode

from cq.definition.registry import lookup
from cq.models import Task
from tests.urls import urlpatterns as suite_patterns

PAGE = """{% load cq static %}<!doctype html>
<meta charset="utf-8"><title>{{ task.func_name }}</title>
<link rel="icon" href="{% static 'cq/icon.svg' %}">
{% cq_script %}
{% cq_task task show=show actions=actions %}
"""


def show(request: HttpRequest, task: Any) -> HttpResponse:
    row = get_object_or_404(Task, pk=task)
    context = {
        "request": request,
        "task": row,
        "show": request.GET.get("show", "bar"),
        "actions": request.GET.get("actions", ""),
    }
    return HttpResponse(Template(PAGE).render(Context(context)))


def start(request: HttpRequest, name: str) -> HttpResponse:
    function: Any = lookup(name)
    task = function.delay(*json.loads(request.GET.get("args", "[]")))
    query = {key: value for key, value in request.GET.items() if key != "args"}
    return redirect(f"/show/{task.id}?{urlencode(query)}")


def under_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Middleware: the strictest policy that a site may have."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer


urlpatterns = [
    *suite_patterns,
    path("show/<uuid:task>", show),
    path("start/<str:name>", start),
]

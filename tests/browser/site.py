"""
A small site around <cq-task>: pages under `default-src 'self'`, for a real daphne.

`/start/NAME?args=[…]` enqueues a task and leads to `/show/ID?show=bar log`, a page
with the three lines that the documentation promises. What follows in the query are options of
the tag; `ttl` makes a token that ends after so many seconds, `can` one with other scopes.
"""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template import Context, Template
from django.urls import path
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import urlencode

from cq.definition.registry import lookup
from cq.models import Task
from cq.web.tokens import watch_token
from tests.urls import urlpatterns as suite_patterns

PAGE = """{% load cq static %}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ task.func_name }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{% static 'cq/icon.svg' %}">
{% cq_script %}</head><body><main><h1>Your task</h1>
{% cq_task task show=show actions=actions token=token on_success=on_success label=label %}
</main></body></html>
"""
SLOTS = """{% load cq static %}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Slots</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{% static 'cq/icon.svg' %}">{% cq_script %}</head>
<body><main><h1>Slots</h1><cq-task task="{{ task.id }}" token="{{ token }}" show="bar">
<b slot="label">Your holiday pictures</b><i slot="queued">in the queue</i>
<a slot="success" href="/done">All done</a><i slot="failure">sorry</i></cq-task></main></body>
"""


def show(request: HttpRequest, task: Any) -> HttpResponse:
    row = get_object_or_404(Task, pk=task)
    query = request.GET
    token = None
    if "ttl" in query or "can" in query:
        user = request.user if request.user.is_authenticated else None
        scopes = query.get("can", "log").split()
        ttl = float(query["ttl"]) if "ttl" in query else None
        token = watch_token(row, scopes, user=user, ttl=ttl, renewable=user is not None)
    names = {"show": "bar", "actions": "", "on_success": "", "label": row.func_name}
    context = {name: query.get(name, default) for name, default in names.items()}
    context |= {"request": request, "task": row, "token": token}
    if token and request.user.is_authenticated:
        page = PAGE.replace(" token=token", f' token=token refresh_url="/cq/t/{row.id}/token"')
    else:
        page = PAGE
    return HttpResponse(Template(page).render(Context(context)))


def slots(request: HttpRequest, task: Any) -> HttpResponse:
    row = get_object_or_404(Task, pk=task)
    return HttpResponse(Template(SLOTS).render(Context({"task": row, "token": watch_token(row)})))


def start(request: HttpRequest, name: str) -> HttpResponse:
    function: Any = lookup(name)
    task = function.delay(*json.loads(request.GET.get("args", "[]")))
    query = {key: value for key, value in request.GET.items() if key != "args"}
    return redirect(f"/show/{task.id}?{urlencode(query)}")


class UnderPolicy(MiddlewareMixin):
    """The strictest policy that a site may have."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["Content-Security-Policy"] = "default-src 'self'"
        return response


urlpatterns = [
    *suite_patterns,
    path("show/<uuid:task>", show),
    path("slots/<uuid:task>", slots),
    path("start/<str:name>", start),
]

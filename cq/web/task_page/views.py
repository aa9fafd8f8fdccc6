"""
The views of a task's page: the whole of it, and the parts that change with its status.
"""

from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from cq.definition.status import ERROR, Status
from cq.models import Task
from cq.web import access
from cq.web.access import Grant
from cq.web.task_page import acts, log, markup
from cq.web.task_page.entrance import granted, user_of
from cq.web.task_page.forest import below, entries, lineage
from cq.web.task_page.mount import Mount, polling_address
from cq.web.task_page.reads import Picture, read, read_facts


def patterns(mount: Mount, name: str, prefix: str = "") -> list[URLPattern]:
    """The addresses of the page, to be put where the mount says; `name` is its bare name."""
    extra = {"mount": mount}
    return [
        path(prefix, show, extra, name=name),
        path(f"{prefix}part", part, extra, name=f"{name}_part"),
        path(f"{prefix}lines", log.lines, extra, name=f"{name}_lines"),
        path(f"{prefix}log.<str:kind>", log.download, extra, name=f"{name}_download"),
        path(f"{prefix}do/<str:do>", acts.do, extra, name=f"{name}_do"),
    ]


@require_GET
@never_cache
def show(request: HttpRequest, task: UUID, mount: Mount) -> HttpResponse:
    """Show one task, live, to its owner and to staff with `cq.view_task`."""
    if not access.is_member(user_of(request)):
        return redirect_to_login(request.get_full_path(), _login_url())
    picture = read(granted(request, task))
    nodes = picture.nodes if picture.is_root else below(picture.nodes, str(task))
    found = entries(nodes, str(task))
    context = {
        **mount.context(request),
        **_facts(request, picture.grant, picture.task, picture.why, mount),
        "title": f"{markup.short_name(picture.task.func_name)} · {picture.node['status']}",
        "picture": picture,
        "now": picture.now,
        "crumbs": _crumbs(picture, mount),
        "has_tree": "tree" in picture.grant.scopes,
        "has_log": "log" in picture.grant.scopes,
        "subtasks": len(nodes) - 1,
        "unseen": _unseen(picture, nodes),
        "tree": markup.tree(found, mount, picture.now),
        "timeline": markup.timeline(found, picture.node, picture.now),
        "log": markup.log(picture.lines),
        "addresses": _addresses(picture.grant, mount),
        "payload": _payload(picture),
        "attempts": _attempts(picture),
    }
    return render(request, "cq/task/page.html", context)


@require_GET
@never_cache
def part(request: HttpRequest, task: UUID, mount: Mount) -> HttpResponse:
    """Make again what changes with the status: the heading, the sentence, the buttons, the data."""
    grant = granted(request, task)
    row, now, why = read_facts(grant)
    picture = Picture(grant, row, now, why, {}, [], None, [], 0)
    context = {
        **_facts(request, grant, row, why, mount),
        "picture": picture,
        "now": now,
        "addresses": _addresses(grant, mount),
        "payload": _payload(picture),
        "attempts": _attempts(picture),
    }
    return render(request, "cq/task/parts.html", context)


def _facts(
    request: HttpRequest, grant: Grant, task: Task, why: str, mount: Mount
) -> dict[str, Any]:
    status = Status(task.status)
    end = task.finished
    return {
        "task": task,
        "short_name": markup.short_name(task.func_name),
        "status": status.name.lower(),
        "status_word": status.label,
        "sign": status.sign,
        "duration": (end - task.started).total_seconds() if end and task.started else None,
        "why": why,
        "buttons": acts.offered(grant, task, user_of(request), mount),
        "worker": str(task.worker).partition(" ")[0] if task.worker else "",
        "error": _error(grant, task, status),
    }


def _error(grant: Grant, task: Task, status: Status) -> str:
    return (task.error or "") if "error" in grant.scopes and status in ERROR else ""


def _payload(picture: Picture) -> list[tuple[str, Any]] | None:
    if picture.payload is None:
        return None
    return [(name, markup.payload(value)) for name, value in picture.payload.items()]


def _attempts(picture: Picture) -> list[dict[str, Any]]:
    return [
        {
            "number": entry.get("attempt"),
            "at": entry.get("at"),
            "type": entry.get("type") or "",
            "message": entry.get("message") or "",
            "traceback": markup.traceback(str(entry.get("traceback") or "")),
        }
        for entry in reversed(picture.failures)
    ]


def _crumbs(picture: Picture, mount: Mount) -> list[tuple[str, str]]:
    """Links to the tasks above this one; what is not known between them is left out."""
    above = lineage(picture.nodes, str(picture.grant.task))
    if not above and picture.task.root_id:
        root: list[dict[str, Any]] = [{"id": str(picture.task.root_id), "name": "top level"}]
        above = root
    return [(mount.page(node["id"]), markup.short_name(node["name"])) for node in above]


def _unseen(picture: Picture, nodes: list[Any]) -> int:
    if picture.counts is None:
        return 0
    total: int = sum(count["count"] for count in picture.counts)
    return max(0, total + 1 - len(nodes))


def _addresses(grant: Grant, mount: Mount) -> dict[str, str]:
    return {
        "poll": polling_address(grant.task),
        "part": mount.part("part", grant.task),
        "lines": mount.part("lines", grant.task),
        "text": mount.part("download", grant.task, "txt"),
        "jsonl": mount.part("download", grant.task, "jsonl"),
        "task": mount.page(markup.NOBODY),
    }


def _login_url() -> str | None:
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return None

"""
The list of tasks: found by words with qualifiers, paged by key, acted on in bulk.

Everything on it is in its address. Retry and revoke ask once more before they act, on the
server, so that they do so without JavaScript too; each task is acted on by itself, and why
one could not be is said.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from cq.definition.payload import mask
from cq.definition.status import ERROR, TERMINAL, Status
from cq.errors import CQError
from cq.models import Task, task_list
from cq.models.figures import CAP
from cq.models.sql import database, dialect
from cq.models.task_list import Count, ListedTask
from cq.web.pages import search
from cq.web.pages.audit import note, say
from cq.web.pages.place import Place, render
from cq.web.pages.words import number
from cq.workflow import retry, revoke

SIZE = 50
MAX_CHOSEN = 200
SHARED_SECONDS = 2.0
VERBS: dict[str, Callable[[UUID], object]] = {"retry": retry.retry, "revoke": revoke.revoke}
PERMISSIONS = {"retry": "cq.retry_task", "revoke": "cq.revoke_task"}
PAST = {"retry": "Retried", "revoke": "Revoked"}


@dataclass(frozen=True, slots=True)
class Chip:
    """A state to choose, with how many tasks have it."""

    word: str
    status: Status
    count: str
    url: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A task of the list, and what a reader may see of it."""

    task: ListedTask
    url: str
    call: str
    is_over: bool
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task that somebody ticked."""

    id: UUID
    func_name: str
    state: Status
    is_able: bool


_shared: tuple[float, dict[Status, Count]] | None = None
_lock = threading.Lock()


def counts_shared() -> dict[Status, Count]:
    """The numbers of the chips, as this process has read them within two seconds."""
    global _shared
    with _lock:
        if _shared is None or time.monotonic() - _shared[0] > SHARED_SECONDS:
            _shared = time.monotonic(), task_list.counts(dialect())
        return _shared[1]


@require_GET
def tasks(request: HttpRequest, place: Place) -> HttpResponse:
    """One page of the list."""
    text = request.GET.get("q", "")
    found = search.read(text)
    db = dialect()
    counts = counts_shared()
    deep = frozenset(status for status, count in counts.items() if count.is_capped)
    with_payload = request.user.has_perm("cq.view_task_payload")
    page = task_list.page(
        db,
        found.wanted,
        before=_uuid(request.GET.get("before", "")),
        size=SIZE,
        with_payload=with_payload,
        deep=deep,
    )
    allowed = [do for do, permission in PERMISSIONS.items() if request.user.has_perm(permission)]
    context = {
        "title": "Tasks",
        "search": found,
        "qualifiers": search.QUALIFIERS,
        "chips": _chips(place, found, counts),
        "scope": _scope(place, found),
        "rows": [_row(place, task) for task in page.tasks],
        "next": _address(place, text, page.next) if page.next else "",
        "was_cut": page.was_cut,
        "window": task_list.WINDOW,
        "is_first": "before" not in request.GET,
        "first": _address(place, text),
        "actions": allowed,
        "with_payload": with_payload,
        "act_url": place.url("tasks_act"),
        "here": request.get_full_path(),
    }
    return render(request, place, "cq/pages/tasks.html", context)


@require_POST
def act(request: HttpRequest, place: Place) -> HttpResponse:
    """Retry or revoke what was chosen: first a page that asks, then the deed."""
    do = request.POST.get("do", "")
    if do not in VERBS:
        raise Http404
    if not request.user.has_perm(PERMISSIONS[do]):
        raise PermissionDenied
    chosen = [id for id in map(_uuid, request.POST.getlist("task")[:MAX_CHOSEN]) if id]
    back = _back(request, place)
    if not chosen:
        say(request, "No task was chosen. Tick some, then choose what to do.", "warning")
        return redirect(back)
    rows = Task.objects.using(database()).filter(pk__in=chosen).order_by("-id")
    found = list(rows.only("id", "func_name", "status", "parent_id", "children_open"))
    if request.POST.get("confirmed") != "1":
        return _ask(request, place, do, found, back)
    done = 0
    for task in found:
        try:
            VERBS[do](task.id)
        except CQError as error:
            say(request, f"{task.func_name}: {error}", "warning")
        else:
            note(request, task, f"{PAST[do]}.")
            done += 1
    say(request, f"{PAST[do]} {done} task{'' if done == 1 else 's'}.", "success")
    return redirect(back)


def _ask(
    request: HttpRequest, place: Place, do: str, found: Sequence[Task], back: str
) -> HttpResponse:
    chosen = [
        Chosen(task.id, task.func_name, Status(task.status), _is_able(do, task)) for task in found
    ]
    able = [task for task in chosen if task.is_able]
    context = {
        "title": f"{do.capitalize()} tasks",
        "do": do,
        "able": able,
        "refused": [task for task in chosen if not task.is_able],
        "running": sum(task.state == Status.RUNNING for task in able),
        "parents": sum(task.state == Status.WAITING for task in able),
        "act_url": place.url("tasks_act"),
        "back": back,
    }
    return render(request, place, "cq/pages/confirm.html", context)


def _is_able(do: str, task: Task) -> bool:
    if do == "revoke":
        return task.status not in TERMINAL
    return task.status in ERROR and task.parent_id is None


def _chips(place: Place, found: search.Search, counts: dict[Status, Count]) -> list[Chip]:
    chips = []
    for status in Status:
        word = status.name.lower()
        is_chosen = status in found.wanted.statuses
        count = counts.get(status, Count())
        text = search.write(found.text, "state", None if is_chosen else word)
        amount = count.roots if found.wanted.roots else count.all
        shown = f"{number(min(amount, CAP))}{'+' if count.is_capped else ''}"
        chips.append(Chip(word, status, shown, _address(place, text), is_chosen))
    return chips


def _scope(place: Place, found: search.Search) -> dict[str, Any]:
    """The switch between roots and everything."""
    return {
        "roots": found.wanted.roots,
        "roots_url": _address(place, search.write(found.text, "parent", None)),
        "all_url": _address(place, search.write(found.text, "parent", "any")),
    }


def _row(place: Place, task: ListedTask) -> Row:
    took = task.finished - task.started if task.finished and task.started else None
    return Row(
        task,
        place.task(task.id),
        _call(task),
        task.status in TERMINAL,
        None if took is None else took.total_seconds(),
    )


def _call(task: ListedTask) -> str:
    """The arguments as one short line, masked."""
    if task.payload is None:
        return ""
    args, kwargs = task.payload
    parts = [_short(mask(arg)) for arg in args] if isinstance(args, list) else []
    masked = mask(kwargs)
    if isinstance(masked, dict):
        parts += [f"{name}={_short(value)}" for name, value in masked.items()]
    text = ", ".join(parts)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _address(place: Place, text: str, before: UUID | None = None) -> str:
    query = {"q": text} if text else {}
    if before:
        query["before"] = str(before)
    return f"{place.tasks}?{urlencode(query, safe=':,*')}" if query else place.tasks


def _back(request: HttpRequest, place: Place) -> str:
    back = request.POST.get("back", "")
    is_ours = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return back if is_ours else place.tasks


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

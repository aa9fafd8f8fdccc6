"""
What can be done with a task from its page, with the consequences said before.

A GET shows them and asks; a POST does it, after the right to it was checked once more, writes
it into the audit, and leads back. A refusal of the engine is explained in place.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods

from cq.definition import registry
from cq.definition.options import CallOptions
from cq.definition.payload import mask
from cq.definition.signature import Signature
from cq.definition.status import ERROR, NOT_STARTED, Status
from cq.errors import CQError, InvalidArguments
from cq.models import Task
from cq.models.queries import open_family
from cq.models.sql import database, dialect
from cq.web import audit
from cq.web.access import Grant
from cq.web.task_page.entrance import granted, user_of
from cq.web.task_page.mount import Mount
from cq.workflow.enqueue import enqueue
from cq.workflow.retry import retry, retry_failed
from cq.workflow.revoke import revoke

MOST_LISTED = 5000
_FAILED = frozenset({Status.FAILURE, Status.LOST, Status.REVOKED})


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done: its words, who may, when it makes sense, what it brings."""

    name: str
    label: str
    done: str
    is_allowed: Callable[[Grant, Any], bool]
    makes_sense: Callable[[Task], bool]
    consequences: Callable[[Task], str]
    is_grave: bool = False
    is_main: bool = False


def _may_run(grant: Grant, user: Any) -> bool:
    return bool(user is not None and user.is_staff and user.has_perm("cq.run_task"))


def _revoking(task: Task) -> str:
    family = list(open_family(dialect(), task.pk))
    counts: Counter[Status] = Counter()
    for start in range(0, len(family), MOST_LISTED):
        some = Task.objects.using(database()).filter(pk__in=family[start : start + MOST_LISTED])
        counts.update(Status(status) for status in some.values_list("status", flat=True))
    unstarted = sum(counts[status] for status in NOT_STARTED)
    parts = []
    if unstarted:
        parts.append(f"{_tasks(unstarted)} will never start")
    if counts[Status.RUNNING]:
        parts.append(f"{_tasks(counts[Status.RUNNING])}, running now, will be asked to stop")
    if counts[Status.WAITING]:
        parts.append(f"{_tasks(counts[Status.WAITING])} will wait no longer")
    if not parts:
        return "Nothing of it is open any more: revoking it changes nothing."
    return f"{'; '.join(parts)}. What they still write does not count."


def _retrying(task: Task) -> str:
    children = Task.objects.using(database()).filter(parent=task.pk).count()
    kept = (
        f" The {children} subtasks of its earlier run keep their rows and count no more."
        if children
        else ""
    )
    return f"The task runs again from its beginning, with fresh attempts.{kept}"


def _retrying_failed(task: Task) -> str:
    below = Task.objects.using(database()).filter(root=task.root_uuid)
    failed = below.filter(status__in=sorted(_FAILED)).count()
    return (
        f"Of the {failed} tasks below it that failed, were lost or revoked, those of the last run "
        "are queued again. What has succeeded keeps its result."
    )


def _running_again(task: Task) -> str:
    return "A new task of the same function is enqueued. This one stays as it is."


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


ACTS = {
    act.name: act
    for act in (
        Act(
            "retry_failed",
            "Retry failed subtasks",
            "Retried the failed subtasks.",
            lambda grant, user: "retry" in grant.scopes,
            lambda task: task.status == Status.INCOMPLETE and task.parent_id is None,
            _retrying_failed,
            is_main=True,
        ),
        Act(
            "retry",
            "Retry",
            "Retried.",
            lambda grant, user: "retry" in grant.scopes,
            lambda task: task.status in ERROR and task.parent_id is None,
            _retrying,
            is_main=True,
        ),
        Act(
            "run_again",
            "Run again",
            "Ran again.",
            _may_run,
            lambda task: registry.find(task.func_name) is not None,
            _running_again,
        ),
        Act(
            "revoke",
            "Revoke",
            "Revoked.",
            lambda grant, user: "revoke" in grant.scopes,
            lambda task: not task.is_terminal,
            _revoking,
            is_grave=True,
        ),
    )
}


def offered(grant: Grant, task: Task, user: Any, mount: Mount) -> list[dict[str, Any]]:
    """The buttons that a reader of the page gets."""
    return [
        {"act": act, "address": mount.part("do", task.pk, act.name)}
        for act in ACTS.values()
        if act.is_allowed(grant, user) and act.makes_sense(task)
    ]


@require_http_methods(["GET", "POST"])
@csrf_protect
@never_cache
def do(request: HttpRequest, task: UUID, do: str, mount: Mount) -> HttpResponse:
    """Ask before something is done to a task (GET), or do it (POST)."""
    grant = granted(request, task)
    act = ACTS.get(do)
    user = user_of(request)
    if act is None or not act.is_allowed(grant, user):
        raise Http404
    row = Task.objects.using(database()).filter(pk=task).first()
    if row is None:
        raise Http404
    refusal = "" if act.makes_sense(row) else _too_late(act, row)
    if request.method == "POST":
        try:
            target = _perform(act, row, request, grant)
        except CQError as error:
            refusal = str(error)
        else:
            audit.note(user, task, act.done)
            messages.success(request, act.done, fail_silently=True)
            return HttpResponseRedirect(mount.page(target))
    context = {
        **mount.context(request),
        "title": f"{act.label}: {row.func_name}",
        "act": act,
        "task": row,
        "back": mount.page(task),
        "consequences": act.consequences(row) if not refusal else "",
        "refusal": refusal,
        "is_possible": act.makes_sense(row),
        "call": _call(row, request, grant) if do == "run_again" else None,
    }
    is_refused = request.method == "POST"
    return render(request, "cq/task/confirm.html", context, status=409 if is_refused else 200)


def _too_late(act: Act, task: Task) -> str:
    """Why a page that was opened, or kept open, for too long offers nothing any more."""
    if act.name == "run_again":
        return f"No task is registered as {task.func_name!r} here, so it cannot be run again."
    return f"{act.label} is not possible any more: the task is {Status(task.status).label}."


def _perform(act: Act, row: Task, request: HttpRequest, grant: Grant) -> UUID:
    """Do it, and return the id of the task whose page shows what came of it."""
    if act.name == "run_again":
        return _run_again(row, request, grant)
    verb: dict[str, Callable[[UUID], object]] = {
        "retry": retry,
        "retry_failed": retry_failed,
        "revoke": revoke,
    }
    verb[act.name](row.pk)
    return row.pk


def _run_again(row: Task, request: HttpRequest, grant: Grant) -> UUID:
    args, kwargs = row.args, row.kwargs
    if _editable(row, grant) is not None:
        args = _given(request, "args", list, args)
        kwargs = _given(request, "kwargs", dict, kwargs)
    options = CallOptions(queue=row.queue, priority=row.priority, owner=row.owner)
    signature = Signature(registry.lookup(row.func_name), tuple(args), kwargs, options)
    return enqueue(signature).pk


def _editable(row: Task, grant: Grant) -> dict[str, str] | None:
    """The arguments as JSON to be edited; None for who may not see them, or not all of them."""
    if "result" not in grant.scopes or mask(row.args) != row.args or mask(row.kwargs) != row.kwargs:
        return None
    return {
        "args": json.dumps(row.args, ensure_ascii=False, indent=2),
        "kwargs": json.dumps(row.kwargs, ensure_ascii=False, indent=2),
    }


def _call(row: Task, request: HttpRequest, grant: Grant) -> dict[str, str] | None:
    """The arguments to be edited; what was typed stays, also when it could not be read."""
    call = _editable(row, grant)
    return call and {name: request.POST.get(name, text) for name, text in call.items()}


def _given(request: HttpRequest, name: str, kind: type, default: Any) -> Any:
    text = request.POST.get(name)
    if text is None:
        return default
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidArguments(
            f"{name} is not JSON: {error}. Expected a JSON {_KIND_WORDS[kind]}. Correct it, or go "
            "back and run the task with the arguments it had.",
            path=name,
        ) from error
    if not isinstance(value, kind):
        raise InvalidArguments(
            f"{name} is a {type(value).__name__}. Expected a JSON {_KIND_WORDS[kind]}. Correct it.",
            path=name,
        )
    return value


_KIND_WORDS: dict[type, str] = {list: "list", dict: "object"}

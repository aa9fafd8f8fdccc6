"""
Tasks in the admin: to look at, to retry, to revoke.

The list never counts the table and never loads a result. A task's page is read only; what
can be done with it is done by POST, each with its own permission. Arguments and results are
masked, and shown only to those who may see payloads.
"""

import json
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html

from cq.definition import registry
from cq.definition.payload import mask
from cq.definition.status import ERROR
from cq.errors import CQError
from cq.models import LogLine, Task
from cq.web.pages.addresses import admin_pages
from cq.web.task_page import Mount, patterns

MAX_PAGE = 100
MAX_ACTED_ON = 1000
LINES_SHOWN = 200
LISTED = ("id", "submitted", "func_name", "status")
LOOKUPS = frozenset(
    {"status__exact", "submitted__gte", "submitted__lt", "function", "level", "parent__id__exact"}
)


class WindowPaginator(Paginator):  # type: ignore[type-arg]
    """Knows that there are a few pages more, and never how many rows there are."""

    def __init__(self, *args: Any, page: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.page_shown = page

    @cached_property
    def count(self) -> int:
        """The rows up to three pages further on; at least that many exist."""
        start = (self.page_shown - 1) * self.per_page
        tasks: Any = self.object_list
        window = tasks.values_list("pk", flat=True)[start : start + 3 * self.per_page]
        return start + len(window)


class TaskList(ChangeList):
    """The list of tasks, which reads only the columns it shows."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        return super().get_queryset(request, exclude_parameters).only(*LISTED)

    def get_results(self, request: HttpRequest) -> None:
        """Keep the search bar from showing the size of the window as a number of results."""
        super().get_results(request)
        self.full_result_count = self.result_count


class FunctionFilter(admin.SimpleListFilter):
    """One task function, from the registry: no DISTINCT over the table."""

    title = "task function"
    parameter_name = "function"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in registry.names()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(func_name=self.value()) if self.value() else queryset


class LevelFilter(admin.SimpleListFilter):
    """Top-level tasks, or everything."""

    title = "level"
    parameter_name = "level"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("root", "Top level only")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(root__isnull=True) if self.value() == "root" else queryset


class TaskAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Tasks: newest first, read only, with retry and revoke."""

    list_display = LISTED
    list_filter = ("status", FunctionFilter, LevelFilter, "submitted")
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    ordering = ("-id",)
    search_fields = ("func_name",)
    search_help_text = "Part of a function's name, or the id of a task (and its tree)."
    actions = ("retry_selected", "revoke_selected")
    fieldsets = (
        (None, {"fields": ("func_name", "status", "queue", "priority", "family")}),
        ("Time", {"fields": ("submitted", "run_at", "started", "finished", "result_expiry")}),
        ("Attempts", {"fields": ("attempts", "retries", "crashes", "releases", "worker_id")}),
        ("Failure", {"fields": ("error", "attempt_errors")}),
        ("Log", {"fields": ("log",)}),
    )

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("cq/admin/admin.css",)}

    payload_fieldset = ("Data", {"fields": ("arguments", "keyword_arguments", "returned")})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes a task here: retention does, and only whole trees that have ended."""
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("cq.retry_task")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("cq.revoke_task")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TaskList

    def get_paginator(
        self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kwargs: Any
    ) -> "Paginator[Any]":
        asked = request.GET.get(PAGE_VAR, "1")
        page = int(asked) if len(asked) <= 3 and asked.isdecimal() else 1
        page = min(max(page, 1), MAX_PAGE)
        return WindowPaginator(queryset, per_page, *args, page=page, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A UUID finds the task and its tree; anything else is part of a function's name."""
        try:
            id = UUID(search_term.strip())
        except ValueError:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(pk=id) | queryset.filter(root=id), False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Only what the page links to: Django would let `?kwargs__token__startswith=` guess."""
        return lookup in LOOKUPS

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Arguments and results are for those who may see payloads."""
        if request.user.has_perm("cq.view_task_payload"):
            return (self.fieldsets[0], self.payload_fieldset, *self.fieldsets[1:])
        return self.fieldsets

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(f"<uuid:pk>/{verb}/", self.admin_site.admin_view(view), name=f"cq_task_{verb}")
            for verb, view in (("retry", self.retry_view), ("revoke", self.revoke_view))
        ]
        pages = admin_pages(self.admin_site, "live/")
        return [*own, *self._task_pages(), *pages, *super().get_urls()]

    def _task_pages(self) -> list[URLPattern]:
        """The live page of a task, behind this admin's login and in its frame."""
        site = self.admin_site
        mount = Mount(
            "admin:cq_task_live", "cq/admin_base.html", "admin:cq_", site.name, site.each_context
        )
        urls = patterns(mount, "cq_task_live", "<uuid:task>/live/")
        for url in urls:
            url.callback = site.admin_view(url.callback)
        return urls

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        task: Task = context["original"]
        is_head = task.status in ERROR and task.parent_id is None
        context["can_retry"] = is_head and self.has_retry_permission(request)
        context["can_revoke"] = not task.is_terminal and self.has_revoke_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="family")
    def family(self, task: Task) -> str:
        """Links to the relatives of a task."""
        links = [
            (word, reverse("admin:cq_task_change", args=[id]))
            for word, id in (
                ("parent", task.parent_id),
                ("top level", task.root_id),
                ("previous", task.previous_id),
            )
            if id
        ]
        below = f"{reverse('admin:cq_task_changelist')}?parent__id__exact={task.pk}"
        links.append(("subtasks", below))
        return format_html(
            " · ".join(["{}"] * len(links)),
            *(format_html('<a href="{}">{}</a>', href, word) for word, href in links),
        )

    @admin.display(description="arguments")
    def arguments(self, task: Task) -> str:
        return _pretty(task.args)

    @admin.display(description="keyword arguments")
    def keyword_arguments(self, task: Task) -> str:
        return _pretty(task.kwargs)

    @admin.display(description="result")
    def returned(self, task: Task) -> str:
        return _pretty(task.result)

    @admin.display(description="failed attempts")
    def attempt_errors(self, task: Task) -> str:
        """Each failed attempt with its traceback, oldest first."""
        texts = [
            f"Attempt {entry.get('attempt')}, {entry.get('at')}\n"
            f"{entry.get('traceback') or entry.get('message')}"
            for entry in task.errors
            if isinstance(entry, dict)
        ]
        return format_html("<pre>{}</pre>", "\n\n".join(texts)) if texts else "–"

    @admin.display(description="last lines")
    def log(self, task: Task) -> str:
        """The end of the record: of the whole tree for a top-level task."""
        lines = LogLine.objects.filter(root=task.root_uuid)
        if task.root_id:
            lines = lines.filter(task=task.pk)
        last = list(lines.order_by("-seq")[:LINES_SHOWN])
        text = "\n".join(f"{timezone.localtime(x.at):%H:%M:%S} {x.message}" for x in last[::-1])
        return format_html("<pre>{}</pre>", text) if text else "–"

    @admin.action(description="Retry selected tasks", permissions=["retry"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        self._act(request, queryset, "Retried", Task.retry)

    @admin.action(description="Revoke selected tasks", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        self._act(request, queryset, "Revoked", Task.revoke)

    def retry_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return self._act_on_one(request, pk, self.has_retry_permission, "Retried", Task.retry)

    def revoke_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return self._act_on_one(request, pk, self.has_revoke_permission, "Revoked", Task.revoke)

    def _act_on_one(
        self,
        request: HttpRequest,
        pk: UUID,
        is_allowed: Callable[[HttpRequest], bool],
        word: str,
        verb: Callable[[Task], None],
    ) -> HttpResponse:
        if request.method != "POST" or not is_allowed(request):
            raise PermissionDenied
        if not self.has_view_permission(request):
            raise PermissionDenied
        self._act(request, Task.objects.filter(pk=pk), word, verb)
        return HttpResponseRedirect(reverse("admin:cq_task_change", args=[pk]))

    def _act(
        self,
        request: HttpRequest,
        queryset: QuerySet[Task],
        word: str,
        verb: Callable[[Task], None],
    ) -> None:
        done = 0
        tasks = list(queryset[: MAX_ACTED_ON + 1])
        for task in tasks[:MAX_ACTED_ON]:
            try:
                verb(task)
            except CQError as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                self.log_change(request, task, f"{word}.")
                done += 1
        if len(tasks) > MAX_ACTED_ON:
            more = f"Only the first {MAX_ACTED_ON} were looked at. Repeat it for the rest."
            self.message_user(request, more, messages.WARNING)
        self.message_user(request, f"{word} {done} task{'' if done == 1 else 's'}.")


def _pretty(value: Any) -> str:
    text = json.dumps(mask(value), indent=2, ensure_ascii=False)
    return format_html("<pre>{}</pre>", text)

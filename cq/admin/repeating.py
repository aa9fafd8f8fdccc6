"""
Repeating tasks in the admin: a form that says at once what it will do.

Names come from the registry and are never imported; the call is checked against the
function; the next five runs are shown while one types. An entry that somebody else saved
meanwhile is not overwritten, and a tick that is due during an edit fires first.
"""

from datetime import datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connections, router
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from cq.definition import registry
from cq.definition.crontab import Crontab, zone
from cq.errors import CQError
from cq.models import RepeatingTask
from cq.models.repeating import DEFINITION
from cq.web.pages.repeating import CODE_ONLY
from cq.workflow.schedule import fire_entry, problem_of

NOT_FROM_FORMS = CODE_ONLY
NAMES_ID = "cq-task-names"
ZONES_ID = "cq-time-zones"


class RepeatingTaskForm(forms.ModelForm):  # type: ignore[type-arg]
    """The definition of an entry, and the version that it was read at."""

    read_version = forms.IntegerField(widget=forms.HiddenInput, required=False)

    class Meta:
        model = RepeatingTask
        fields: ClassVar[tuple[str, ...]] = DEFINITION
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "func_name": forms.TextInput(
                attrs={"list": NAMES_ID, "autocomplete": "off", "size": 50}
            ),
            "crontab": forms.TextInput(attrs={"autocomplete": "off", "size": 30}),
            "timezone": forms.TextInput(attrs={"list": ZONES_ID, "size": 30}),
            "args": forms.Textarea(attrs={"rows": 2, "cols": 60}),
            "kwargs": forms.Textarea(attrs={"rows": 3, "cols": 60}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["read_version"] = self.instance.version

    def clean_args(self) -> Any:
        return self.cleaned_data["args"] or []

    def clean_kwargs(self) -> Any:
        return self.cleaned_data["kwargs"] or {}

    def clean_func_name(self) -> str:
        name: str = self.cleaned_data["func_name"].strip()
        function = registry.find(name)
        if function is not None and function.name in NOT_FROM_FORMS:
            raise ValidationError(
                f"{function.name} is not started from a form, because only code may choose what it "
                "runs. Schedule it with schedule_task() in a data migration."
            )
        return function.name if function else name

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.instance.pk and self.cleaned_data.get("read_version") != self.instance.version:
            raise ValidationError(
                f"Somebody else saved this entry while you were editing it (it is now at version "
                f"{self.instance.version}). Nothing was saved. Load the page again and repeat "
                "your change.",
                code="conflict",
            )
        return cleaned


class RepeatingTaskAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Repeating tasks: what runs, when, and when it runs next."""

    form = RepeatingTaskForm
    list_display = ("name", "schedule", "next_run", "last_run", "enabled", "skipped", "problem")
    search_fields = ("name", "func_name")
    show_facets = admin.ShowFacets.NEVER
    readonly_fields = ("next_run", "last_run", "skipped", "last_skip", "problem")
    actions = ("run_now", "enable", "disable")
    fieldsets = (
        ("What", {"fields": ("func_name", "args", "kwargs")}),
        ("When", {"fields": ("crontab", "timezone", "enabled", "coalesce", "on_missed")}),
        ("How", {"classes": ("collapse",), "fields": ("queue", "priority", "result_ttl")}),
        ("Entry", {"fields": ("name", "read_version")}),
        (
            "So far",
            {"fields": ("next_run", "last_run", "skipped", "last_skip", "problem")},
        ),
    )

    class Media:
        js = ("cq/admin/repeating.js",)
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("cq/admin/admin.css",)}

    @admin.display(description="schedule")
    def schedule(self, entry: RepeatingTask) -> str:
        """The crontab in words, with its zone."""
        try:
            return f"{Crontab.parse(entry.crontab).words()} ({entry.timezone})"
        except CQError:
            return f"{entry.crontab} ({entry.timezone})"

    @admin.display(description="problem")
    def problem(self, entry: RepeatingTask) -> str:
        """Why the entry does not fire: its function has vanished, or takes other arguments."""
        return problem_of(entry) or "–"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """A new entry has no past to show."""
        return self.fieldsets if obj else self.fieldsets[:-1]

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("cq.run_task")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path("preview/", view(self.preview_view), name="cq_repeatingtask_preview"),
            path("<int:pk>/run/", view(self.run_view), name="cq_repeatingtask_run"),
        ]
        return own + super().get_urls()

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> RepeatingTask | None:
        """Read the entry; a POST locks it, so that the scheduler and the edit take turns."""
        found: RepeatingTask | None = super().get_object(request, object_id, from_field)
        alias = router.db_for_write(RepeatingTask)
        if found is None or request.method != "POST" or not connections[alias].in_atomic_block:
            return found
        return RepeatingTask.objects.using(alias).select_for_update().filter(pk=found.pk).first()

    def save_model(self, request: HttpRequest, obj: RepeatingTask, form: Any, change: bool) -> None:
        if change:
            fire_entry(obj.pk)
        super().save_model(request, obj, form, change)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        entry = kwargs.get("obj")
        context["task_names"] = [name for name in registry.names() if name not in NOT_FROM_FORMS]
        context["names_id"], context["zones_id"] = NAMES_ID, ZONES_ID
        context["zones"] = sorted({"UTC", timezone.get_default_timezone_name()})
        context["can_run"] = entry is not None and self.has_run_permission(request)
        context["preview_url"] = reverse("admin:cq_repeatingtask_preview")
        return super().render_change_form(request, context, *args, **kwargs)

    def preview_view(self, request: HttpRequest) -> JsonResponse:
        """Say in JSON what a crontab means and when it fires next, or what is wrong with it."""
        if not (self.has_view_permission(request) or self.has_add_permission(request)):
            raise PermissionDenied
        try:
            crontab = Crontab.parse(request.GET.get("crontab", ""))
            where = zone(request.GET.get("timezone", ""))
        except CQError as error:
            return JsonResponse({"error": str(error)})
        firings = crontab.preview(timezone.now(), where)
        runs = [describe_run(crontab, firing, where) for firing in firings]
        return JsonResponse({"words": crontab.words(), "runs": runs})

    def run_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST" or not self.has_run_permission(request):
            raise PermissionDenied
        if not self.has_view_permission(request):
            raise PermissionDenied
        self.run_now(request, RepeatingTask.objects.filter(pk=pk))
        return HttpResponseRedirect(reverse("admin:cq_repeatingtask_change", args=[pk]))

    @admin.action(description="Run selected repeating tasks now", permissions=["run"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[RepeatingTask]) -> None:
        for entry in queryset:
            try:
                if entry.func_name in NOT_FROM_FORMS:
                    raise CQError(f"{entry.func_name} is not started from a form.")
                task = entry.submit()
            except CQError as error:
                self.message_user(request, str(error), messages.ERROR)
                continue
            if task is None:
                busy = f"The last run of {entry.name} has not ended; nothing was started."
                self.message_user(request, busy, messages.WARNING)
            else:
                self.log_change(request, entry, f"Run now as {task.pk}.")
                self.message_user(request, f"Started {entry.name} as task {task.pk}.")

    @admin.action(description="Enable selected repeating tasks", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[RepeatingTask]) -> None:
        self._switch(request, queryset, is_on=True)

    @admin.action(description="Disable selected repeating tasks", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[RepeatingTask]) -> None:
        self._switch(request, queryset, is_on=False)

    def _switch(
        self, request: HttpRequest, queryset: QuerySet[RepeatingTask], *, is_on: bool
    ) -> None:
        word = "Enabled" if is_on else "Disabled"
        for entry in queryset.exclude(enabled=is_on):
            entry.enabled = is_on
            try:
                entry.save()
            except CQError as error:
                self.message_user(request, f"{entry.name}: {error}", messages.ERROR)
            else:
                self.log_change(request, entry, f"{word}.")
                self.message_user(request, f"{word} {entry.name}.")


def describe_run(crontab: Crontab, firing: datetime, where: ZoneInfo) -> dict[str, str]:
    """One run as the form shows it: its time there, in UTC, and what is odd about it."""
    return {
        "utc": firing.isoformat(),
        "local": firing.astimezone(where).strftime("%a %Y-%m-%d %H:%M %Z"),
        "note": crontab.note(firing, where),
    }

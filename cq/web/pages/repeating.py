"""
The repeating tasks: what runs when, in words, when next, and how the last runs went.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_GET, require_POST

from cq.definition.crontab import Crontab, zone
from cq.errors import CQError
from cq.models import RepeatingTask, figures
from cq.models.runs import Run, last_runs
from cq.models.sql import database, dialect
from cq.web.pages.audit import note, say
from cq.web.pages.overview import LATE
from cq.web.pages.place import Place, render
from cq.workflow.schedule import problem_of

SIZE = 50
CODE_ONLY = frozenset({"cq.tasks.call_command_task", "cq.tasks.call_errorback"})
"""What these run is said by the settings and by code, never by a button."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A repeating task as the page shows it."""

    row: RepeatingTask
    words: str
    upcoming: list[tuple[datetime, str, str]]
    """The next runs: the moment, the time there, and what is odd about it."""
    runs: list[Run]
    run_urls: list[tuple[Run, str]]
    average: float | None
    is_late: bool
    problem: str
    edit_url: str


@require_GET
def repeating(request: HttpRequest, place: Place) -> HttpResponse:
    """One page of the entries, by name."""
    text = request.GET.get("q", "").strip()[:200]
    rows = RepeatingTask.objects.using(database()).order_by("name")
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(func_name__icontains=text))
    after = request.GET.get("after", "")
    if after:
        rows = rows.filter(name__gt=after)
    found = list(rows[: SIZE + 1])
    db = dialect()
    now = figures.moment(db)
    runs = last_runs(db, [row.pk for row in found[:SIZE]])
    is_more = len(found) > SIZE
    query = {"q": text} if text else {}
    context = {
        "title": "Repeating tasks",
        "text": text,
        "entries": [_entry(place, row, runs.get(row.pk, []), now) for row in found[:SIZE]],
        "next": f"?{urlencode({**query, 'after': found[SIZE - 1].name})}" if is_more else "",
        "is_first": not after,
        "first": f"?{urlencode(query)}" if query else place.url("repeating"),
        "act_url": place.url("repeating_act"),
        "may_run": request.user.has_perm("cq.run_task"),
        "may_pause": request.user.has_perm("cq.change_repeatingtask"),
        "add_url": _admin("add") if request.user.has_perm("cq.add_repeatingtask") else "",
    }
    return render(request, place, "cq/pages/repeating.html", context)


def _entry(place: Place, row: RepeatingTask, runs: list[Run], now: datetime) -> Entry:
    words, upcoming = row.crontab, []
    try:
        crontab, where = Crontab.parse(row.crontab), zone(row.timezone)
        words = f"{crontab.words()}, {row.timezone}"
        firings = crontab.preview(now, where) if row.enabled else []
        upcoming = [
            (at, at.astimezone(where).strftime("%a %Y-%m-%d %H:%M %Z"), crontab.note(at, where))
            for at in firings
        ]
    except CQError:
        pass  # problem_of says what is wrong with it
    lengths = [run.seconds for run in runs if run.seconds is not None]
    return Entry(
        row=row,
        words=words,
        upcoming=upcoming,
        runs=runs,
        run_urls=[(run, place.task(run.id)) for run in runs],
        average=sum(lengths) / len(lengths) if lengths else None,
        is_late=bool(row.enabled and row.next_run and row.next_run < now - LATE),
        problem=problem_of(row),
        edit_url=_admin("change", row.pk),
    )


def _admin(page: str, *args: Any) -> str:
    try:
        return reverse(f"admin:cq_repeatingtask_{page}", args=args)
    except NoReverseMatch:
        return ""


@require_POST
def act(request: HttpRequest, place: Place) -> HttpResponse:
    """Run an entry now, pause it, or let it go on."""
    verbs = {"run": _run, "pause": _switch, "resume": _switch}
    do, _, pk = request.POST.get("do", "").partition("-")
    if do not in verbs or not (pk.isascii() and pk.isdigit() and len(pk) < 19):
        raise Http404
    permission = "cq.run_task" if do == "run" else "cq.change_repeatingtask"
    if not request.user.has_perm(permission):
        raise PermissionDenied
    entry = get_object_or_404(RepeatingTask.objects.using(database()), pk=int(pk))
    try:
        verbs[do](request, place, entry, do)
    except CQError as error:
        say(request, f"{entry.name}: {error}", "error")
    return redirect(f"{place.url('repeating')}#entry-{entry.pk}")


def _run(request: HttpRequest, place: Place, entry: RepeatingTask, do: str) -> None:
    if entry.func_name in CODE_ONLY:
        raise CQError(
            f"{entry.func_name} is not started by hand, because only code may choose what it "
            "runs. Expected another function. Wait for its next run."
        )
    task = entry.submit()
    if task is None:
        say(request, f"The last run of {entry.name} has not ended; nothing was started.", "warning")
        return
    note(request, entry, f"Run now as {task.pk}.")
    link = format_html('<a href="{}">{}</a>', place.task(task.pk), task.pk)
    say(request, format_html("Started {} as task {}.", entry.name, link), "success")


def _switch(request: HttpRequest, place: Place, entry: RepeatingTask, do: str) -> None:
    is_on = do == "resume"
    if entry.enabled != is_on:
        entry.enabled = is_on
        entry.save()
        note(request, entry, "Enabled." if is_on else "Disabled.")
    next_run = f" It runs next at {timezone.localtime(entry.next_run):%Y-%m-%d %H:%M %Z}."
    say(request, f"{entry.name} {'goes on.' + next_run if is_on else 'is paused.'}", "success")

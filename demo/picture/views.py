"""
The pages and files of the demo.

`index` takes a picture and starts its print, `page` shows it fill in, `mend` lets a failed
one go on, `wall` shows coalescing. Nobody needs to log in: a picture's address cannot be
guessed, and the page carries a signed token with which its element may watch this one tree
of tasks. Who enters as a reader gets a token of another scope.
"""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.contrib.auth import login, logout
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from cq import watch_token
from cq.errors import IllegalTransition
from cq.models import Task
from picture import board, files, readers, uploads
from picture.forms import PictureForm, samples
from picture.models import Beat, Picture
from picture.tasks import hang_wall, make_print, stitch, write_report
from picture.tasks import mend as mend_tiles

WALL_DELAY = timedelta(seconds=1.5)
"""How long a run of `hang_wall` waits for further presses."""

FORM_OVERHEAD = 100_000
"""What a form adds to the file it carries, in bytes; generous."""


@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """Show the form; with a picture, start its print and go to its page."""
    error = ""
    if request.method == "POST":
        form, error = filled_form(request)
        if form is not None:
            return redirect(start(form))
    context = {
        "error": error,
        "samples": samples(),
        "max_megabytes": uploads.MAX_BYTES // 1_000_000,
        "beats": Beat.objects.all()[:30],
        "reader": readers.present(request.user),
        "readers": readers.READERS,
        "has_wall": files.wall().exists(),
    }
    return render(request, "picture/index.html", context)


def filled_form(request: HttpRequest) -> tuple[PictureForm | None, str]:
    """Return a valid form, or None and the sentence that says what is wrong."""
    if int(request.headers.get("Content-Length") or 0) > uploads.MAX_BYTES + FORM_OVERHEAD:
        # Said before the body is parsed: nobody waits for a file that is refused anyway.
        limit = uploads.MAX_BYTES // 1_000_000
        return None, f"The file is too large: pictures up to {limit} MB can be printed."
    form = PictureForm(request.POST, request.FILES)
    if form.is_valid():
        return form, ""
    return None, " ".join(form.non_field_errors()) or "The form could not be read: send it again."


def start(form: PictureForm) -> Picture:
    """Keep the picture and enqueue its print: cut, then stitch, then report."""
    width, height = form.picture.size
    picture = Picture(name=form.name, width=width, height=height)
    files.write(form.picture, picture.folder.source)
    with transaction.atomic():
        made = make_print.delay(str(picture.pk), form.cleaned_data["torn"])
        made.chain(stitch, str(picture.pk)).chain(write_report, str(picture.pk))
        picture.root = made.id
        picture.save()
    return picture


@require_GET
def page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show the picture as it stands; the page's script keeps it up to date."""
    picture = get_object_or_404(Picture, pk=pk)
    task = Task.objects.filter(pk=picture.root).first()
    context = {
        "picture": picture,
        "task": task,
        "can_mend": task is not None and task.status == Task.STATUS_INCOMPLETE,
        "reader": readers.present(request.user),
        "readers": readers.READERS,
        "cells": board.cells(picture),
        "finished": picture.folder.finished.exists(),
        "reported": picture.folder.report.exists(),
        "beats": Beat.objects.all()[:30],
    }
    return render(request, "picture/page.html", context)


@require_POST
def mend(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Mend what is torn, and print again only what failed."""
    picture = get_object_or_404(Picture, pk=pk)
    task = get_object_or_404(Task, pk=picture.root)
    if task.status == Task.STATUS_INCOMPLETE:
        mend_tiles(picture)
        # Two who press at once: it is being printed, which is what both wanted.
        with suppress(IllegalTransition):
            task.retry(failed_only=True)
    return redirect(picture)


@require_POST
def enter(request: HttpRequest) -> HttpResponse:
    """Become a reader, or a visitor again, and stay on the page."""
    name = request.POST.get("reader", "")
    if name in readers.READERS:
        login(request, readers.account(name), readers.BACKEND)
    else:
        logout(request)
    back = request.POST.get("next", "")
    is_safe = url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure())
    return redirect(back if is_safe else "index")


@require_POST
def wall(request: HttpRequest) -> HttpResponse:
    """Have the wall hung; whoever asks before that has begun shares the run."""
    task = hang_wall.using(run_after=WALL_DELAY).delay()
    if request.headers.get("Accept") != "application/json":
        return redirect("index")
    return JsonResponse(
        {
            "task": str(task.id),
            "token": watch_token(task),
            "poll": reverse("cq:watch", args=[task.id]),
            "merged": task.is_merged,
        }
    )


@require_GET
@cache_control(no_cache=True)
def wall_picture(request: HttpRequest) -> FileResponse:
    """Send the wall as it hangs now."""
    return send(files.wall(), "image/png")


@require_GET
def places(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Say which task prints which tile."""
    return JsonResponse(board.places(get_object_or_404(Picture, pk=pk)))


@require_GET
@cache_control(private=True, max_age=86400, immutable=True)
def tile(request: HttpRequest, pk: UUID, column: int, row: int) -> FileResponse:
    """Send one printed tile."""
    picture = get_object_or_404(Picture, pk=pk)
    try:
        wanted = picture.grid.tile(column, row)
    except IndexError as outside:
        raise Http404(str(outside)) from outside
    return send(picture.folder.printed(wanted), "image/png")


@require_GET
@cache_control(private=True, max_age=86400, immutable=True)
def finished(request: HttpRequest, pk: UUID) -> FileResponse:
    """Send the stitched picture."""
    return send(get_object_or_404(Picture, pk=pk).folder.finished, "image/png")


@require_GET
def report(request: HttpRequest, pk: UUID) -> FileResponse:
    """Send the report that the last task wrote."""
    return send(get_object_or_404(Picture, pk=pk).folder.report, "text/html; charset=utf-8")


@require_GET
@cache_control(public=True, max_age=3600)
def sample(request: HttpRequest, name: str) -> FileResponse:
    """Send one of the demo's own pictures."""
    if name not in samples():
        raise Http404(f"There is no sample called {name!r}.")
    return send(Path(settings.SAMPLES) / f"{name}.jpg", "image/jpeg")


def send(path: Path, content_type: str) -> FileResponse:
    """Send a file, or 404 when its task has not written it yet."""
    try:
        return FileResponse(path.open("rb"), content_type=content_type)
    except FileNotFoundError as missing:
        raise Http404("It is not printed yet.") from missing

"""
Places: the same pages stand at /cq/ and inside an admin site, each with its own addresses.

What enters is a view that takes a request and a Place; what leaves is a Django view that
asks for the right to look first. Staff with `cq.view_task` may; others are sent to log in,
or told that there is no such page.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render as render_template
from django.urls import NoReverseMatch, reverse
from django.views.decorators.cache import never_cache

from cq.web.access import is_member

LIVE_HEADER = "X-CQ-Live"
SECTIONS = (
    ("overview", "Overview", "o"),
    ("tasks", "Tasks", "t"),
    ("repeating", "Repeating", "r"),
    ("workers", "Workers", "w"),
)


@dataclass(frozen=True, slots=True)
class Section:
    """One entry of the navigation; `key` is typed after `g`."""

    name: str
    label: str
    key: str
    url: str
    is_here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page is shown: its frame, and the addresses of the others."""

    here: str
    frame: str
    prefix: str
    app: str | None = None
    is_live: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)

    def url(self, name: str, *args: Any) -> str:
        """The address of a page or an action in this place."""
        return reverse(f"{self.prefix}{name}", args=args, current_app=self.app)

    @property
    def sections(self) -> list[Section]:
        """The navigation."""
        return [
            Section(name, label, key, self.url(name), name == self.here)
            for name, label, key in SECTIONS
        ]

    @property
    def overview(self) -> str:
        """The address of the overview, for templates."""
        return self.url("overview")

    @property
    def tasks(self) -> str:
        """The address of the list of tasks, for templates."""
        return self.url("tasks")

    @property
    def repeating(self) -> str:
        """The address of the repeating tasks, for templates."""
        return self.url("repeating")

    @property
    def workers(self) -> str:
        """The address of the workers, for templates."""
        return self.url("workers")

    def task(self, id: UUID) -> str:
        """The page of one task in this place, else where there is one."""
        names = ("cq:task", "admin:cq_task_live")
        for name in names if self.app is None else reversed(names):
            try:
                return reverse(name, args=[id], current_app=self.app)
            except NoReverseMatch:
                continue
        return ""


View = Callable[..., HttpResponse]


def standalone(view: View, name: str) -> View:
    """The view at its own address, in cq's own frame."""

    @never_cache
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user = getattr(request, "user", None)
        if not is_member(user):
            return redirect_to_login(request.get_full_path(), _login_url())
        if not may_look(user):
            raise Http404
        live = LIVE_HEADER in request.headers
        frame = "cq/pages/live.html" if live else "cq/base.html"
        place = Place(here=name, frame=frame, prefix="cq:", is_live=live)
        return view(request, place, *args, **kwargs)

    return answer


def in_admin(view: View, name: str, site: Any) -> View:
    """The view inside an admin site: its login, its frame, its branding."""

    @never_cache
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not may_look(request.user):
            raise Http404
        live = LIVE_HEADER in request.headers
        place = Place(
            here=name,
            frame="cq/pages/live.html" if live else "cq/admin_base.html",
            prefix="admin:cq_",
            app=site.name,
            is_live=live,
            context={} if live else site.each_context(request),
        )
        return view(request, place, *args, **kwargs)

    return site.admin_view(answer)  # type: ignore[no-any-return]


def may_look(user: Any) -> bool:
    """Whether these pages are for this user: staff who may see tasks."""
    return is_member(user) and user.is_staff and user.has_perm("cq.view_task")


def render(
    request: HttpRequest, place: Place, template: str, context: Mapping[str, Any]
) -> HttpResponse:
    """
    Answer with a page, or with its content alone for one that is open already.

    The same content has the same ETag, so that a page where nothing happens costs a 304.
    """
    values = {**place.context, "place": place, "frame": place.frame, **context}
    response = render_template(request, template, values)
    response["Vary"] = f"Cookie, {LIVE_HEADER}"
    if place.is_live:
        etag = f'"{hashlib.sha256(response.content).hexdigest()[:32]}"'
        if request.headers.get("If-None-Match") == etag:
            response = HttpResponse(status=304)
        response["ETag"] = etag
    return response


def _login_url() -> str | None:
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return None

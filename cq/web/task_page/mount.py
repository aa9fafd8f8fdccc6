"""
Where the page of a task lives: under `cq.urls`, or inside an admin.

A Mount names the addresses of one place and the frame that the page is put into. It enters
every view, so that no page of the admin leads out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from cq.web.pages.place import Place, may_look


@dataclass(frozen=True, slots=True)
class Mount:
    """One place: the name of the page there, its frame, and how the other pages are named."""

    names: str
    frame: str
    prefix: str
    app: str | None = None
    branding: Callable[[HttpRequest], dict[str, Any]] | None = None

    def context(self, request: HttpRequest) -> dict[str, Any]:
        """What the frame needs: the navigation, for those who may use it, and the branding."""
        found = {} if self.branding is None else self.branding(request)
        if may_look(getattr(request, "user", None)):
            place = Place(here="tasks", frame=self.frame, prefix=self.prefix, app=self.app)
            found = {**found, "place": place}
        return {**found, "frame": self.frame}

    def page(self, task: UUID | str) -> str:
        """The address of a task's page."""
        return reverse(self.names, args=[task], current_app=self.app)

    def part(self, name: str, task: UUID | str, *args: str) -> str:
        """An address that belongs to the page of a task."""
        return reverse(f"{self.names}_{name}", args=[task, *args], current_app=self.app)


def polling_address(task: UUID) -> str:
    """Where the page asks when no socket gets through; empty where `cq.urls` is not included."""
    try:
        return reverse("cq:watch", args=[task])
    except NoReverseMatch:
        return ""

"""
The addresses of the pages: one table for cq's own and for those inside an admin site.
"""

from typing import Any

from django.urls import URLPattern, path

from cq.web.pages import overview, repeating, tasks, workers
from cq.web.pages.place import View, in_admin, standalone

# name, address, the section it belongs to, view
PAGES: tuple[tuple[str, str, str, View], ...] = (
    ("overview", "", "overview", overview.overview),
    ("tasks", "tasks/", "tasks", tasks.tasks),
    ("tasks_act", "tasks/act/", "tasks", tasks.act),
    ("repeating", "repeating/", "repeating", repeating.repeating),
    ("repeating_act", "repeating/act/", "repeating", repeating.act),
    ("workers", "workers/", "workers", workers.workers),
)


def own_pages() -> list[URLPattern]:
    """The pages as cq.urls includes them."""
    return [path(at, standalone(view, here), name=name) for name, at, here, view in PAGES]


def admin_pages(site: Any, below: str) -> list[URLPattern]:
    """The pages as an admin site has them, below an address of one of its models."""
    return [
        path(f"{below}{at}", in_admin(view, here, site), name=f"cq_{name}")
        for name, at, here, view in PAGES
    ]

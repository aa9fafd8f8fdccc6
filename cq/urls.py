"""
Addresses of the live views: `path("cq/", include("cq.urls"))`.

The overview and the lists for staff, and one page and one polling endpoint per task. The
socket is not here: browsers reach it at /cq/ws through `cq.routing.websocket_urlpatterns`.
"""

from django.urls import path

from cq.web import views
from cq.web.pages.addresses import own_pages
from cq.web.task_page import Mount, patterns

app_name = "cq"

urlpatterns = [
    *own_pages(),
    *patterns(Mount("cq:task", "cq/base.html", "cq:"), "task", "t/<uuid:task>/"),
    path("t/<uuid:task>/watch", views.watch, name="watch"),
    path("t/<uuid:task>/token", views.renew, name="renew"),
    path("t/<uuid:task>/<str:do>", views.act, name="act"),
]

"""
Addresses of the live views: `path("cq/", include("cq.urls"))`.

The overview and the lists for staff, and one page and one polling endpoint per task. The
socket is not here: browsers reach it at /cq/ws through `cq.routing.websocket_urlpatterns`.
"""

from django.urls import path

from cq.web import views
from cq.web.pages.addresses import own_pages

app_name = "cq"

urlpatterns = [
    *own_pages(),
    path("t/<uuid:task>/", views.task_page, name="task"),
    path("t/<uuid:task>/watch", views.watch, name="watch"),
    path("t/<uuid:task>/<str:do>", views.act, name="act"),
]

"""The demo's addresses: its own pages, the admin, and cq's."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("favicon.ico", RedirectView.as_view(url=static("picture/mark.svg"))),
    path("admin/", admin.site.urls),
    path("cq/", include("cq.urls")),
    path("", include("picture.urls")),
]

"""Addresses of the test project: the admin, and cq as a user's project would include it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("cq/", include("cq.urls")),
]

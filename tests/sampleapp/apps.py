"""The app of the sample tasks."""

from __future__ import annotations

from django.apps import AppConfig


class SampleAppConfig(AppConfig):
    """Named `sampleapp`, so that its tasks are `tests.sampleapp.tasks.<function>`."""

    name = "tests.sampleapp"
    label = "sampleapp"
    default_auto_field = "django.db.models.BigAutoField"

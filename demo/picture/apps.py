"""The demo's one app."""

from django.apps import AppConfig


class PictureConfig(AppConfig):
    """Pictures, their tasks and their pages."""

    name = "picture"
    default_auto_field = "django.db.models.BigAutoField"

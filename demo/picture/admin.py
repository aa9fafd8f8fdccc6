"""Pictures and heartbeats in the admin, to look at."""

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html

from picture.models import Beat, Picture


class OnlyToLookAt(admin.ModelAdmin):
    """Rows that only the demo itself makes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Picture)
class PictureAdmin(OnlyToLookAt):
    """What was printed; the name links to the picture's page."""

    list_display = ("name", "width", "height", "created", "page")

    @admin.display(description="page")
    def page(self, picture: Picture) -> str:
        return format_html('<a href="{}">look</a>', picture.get_absolute_url())


@admin.register(Beat)
class BeatAdmin(OnlyToLookAt):
    """The minutes that the repeating task noted."""

    list_display = ("at", "pid")

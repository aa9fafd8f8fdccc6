"""Pictures and heartbeats in the admin, to look at."""

from django.contrib import admin
from django.utils.html import format_html

from picture.models import Beat, Picture


@admin.register(Picture)
class PictureAdmin(admin.ModelAdmin):
    """What was printed; the name links to the picture's page."""

    list_display = ("name", "width", "height", "created", "page")

    @admin.display(description="page")
    def page(self, picture: Picture) -> str:
        return format_html('<a href="{}">look</a>', picture.get_absolute_url())


@admin.register(Beat)
class BeatAdmin(admin.ModelAdmin):
    """The minutes that the repeating task noted."""

    list_display = ("at", "pid")

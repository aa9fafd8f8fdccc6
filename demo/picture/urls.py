"""The addresses of the demo's pages and files."""

from django.urls import path

from picture import views

urlpatterns = [
    path("", views.index, name="index"),
    path("enter/", views.enter, name="enter"),
    path("wall/", views.wall, name="wall"),
    path("wall.png", views.wall_picture, name="wall-picture"),
    path("sample/<slug:name>.jpg", views.sample, name="sample"),
    path("picture/<uuid:pk>/", views.page, name="picture"),
    path("picture/<uuid:pk>/mend/", views.mend, name="mend"),
    path("picture/<uuid:pk>/places.json", views.places, name="places"),
    path("picture/<uuid:pk>/tile/<int:column>-<int:row>.png", views.tile, name="tile"),
    path("picture/<uuid:pk>/finished.png", views.finished, name="finished"),
    path("picture/<uuid:pk>/report/", views.report, name="report"),
]

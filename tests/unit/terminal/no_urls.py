"""The addresses of a project that serves nothing."""

urlpatterns: list[object] = []

"""The web process of the watchers: cq's live socket alone, without sessions and users."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from cq.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter({"websocket": URLRouter(websocket_urlpatterns)})  # type: ignore[arg-type]

"""
The demo as an ASGI application: pages, static files, the live socket.

`application` hosts the worker too, on the same loop, when there are no services; with them
`CQ["EMBEDDED"]` is off. `site` is the same without a worker.
"""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
pages = get_asgi_application()

# The apps are loaded now: these import models.
from cq.asgi import with_worker  # noqa: E402
from cq.routing import websocket_urlpatterns  # noqa: E402

site = ProtocolTypeRouter(
    {
        # The demo serves its few static files itself, with DEBUG off too.
        "http": ASGIStaticFilesHandler(pages),
        "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns)),
    }
)

application = with_worker(site)

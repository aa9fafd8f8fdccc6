"""
The demo as an ASGI application: pages, static files, the live socket.

Without services the worker runs beside it on the same loop; with them `with_worker`
does nothing, since `CQ["EMBEDDED"]` is off.
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

application = with_worker(
    ProtocolTypeRouter(
        {
            # The demo serves its few static files itself, with DEBUG off too.
            "http": ASGIStaticFilesHandler(pages),
            "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns)),
        }
    )
)

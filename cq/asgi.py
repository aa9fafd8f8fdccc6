"""
An ASGI application for projects that have none: HTTP, the live socket, an embedded worker.

`ASGI_APPLICATION = "cq.asgi.application"` is enough for daphne and runserver. A project
with its own asgi.py copies these lines and adds its routes. The worker beside it runs
only where CQ["EMBEDDED"] is on, by default with DEBUG.
"""

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

http = get_asgi_application()  # loads the apps, which the routes below import models from

from cq.routing import channel_routing, websocket_urlpatterns  # noqa: E402
from cq.worker.embedded import with_worker  # noqa: E402

sockets = URLRouter(websocket_urlpatterns)  # type: ignore[arg-type]

application = with_worker(
    ProtocolTypeRouter(  # type: ignore[arg-type]
        {
            "http": http,
            "websocket": AuthMiddlewareStack(sockets),
            "channel": channel_routing,
        }
    )
)

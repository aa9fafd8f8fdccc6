"""ASGI applications whose live socket is wrong, each in its own way."""

import asyncio
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

only_http = ProtocolTypeRouter({"http": get_asgi_application()})


async def closing(scope: Any, receive: Any, send: Any) -> None:
    """Refuse every handshake."""
    await send({"type": "websocket.close", "code": 1008})


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and never say a word."""
    await send({"type": "websocket.accept", "subprotocol": "cq.v1"})
    await asyncio.Event().wait()


async def babbling(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and say what is no frame."""
    await send({"type": "websocket.accept", "subprotocol": "cq.v1"})
    await send({"type": "websocket.send", "text": "hello"})
    await receive()

"""The socket check: it speaks where no socket of cq is served, or any host name is trusted."""

from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.core.checks import WARNING, CheckMessage
from django.urls import path, re_path

from cq.checks import CATALOGUE, Messages, check_sockets


def only(messages: Messages, id: str) -> CheckMessage:
    assert [message.id for message in messages] == [id]
    assert id in CATALOGUE
    assert messages[0].level == WARNING
    return messages[0]


@pytest.fixture(autouse=True)
def fine(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["www.example.org"]


class Ours(AsyncConsumer):
    """Stands for a consumer of cq/web."""

    __module__ = "cq.web.consumers"


class Derived(Ours):
    __module__ = "project.consumers"


class Foreign(AsyncConsumer):
    """A consumer of the project."""


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    """An application that hides its inside."""


http_only = get_asgi_application()
no_sockets = ProtocolTypeRouter({"http": http_only})
foreign_sockets = ProtocolTypeRouter({"websocket": URLRouter([path("x/", Foreign.as_asgi())])})
nested_foreign = ProtocolTypeRouter(
    {"websocket": URLRouter([path("x/", URLRouter([path("y/", Foreign.as_asgi())]))])}
)
good = ProtocolTypeRouter({"websocket": URLRouter([path("x/", Ours.as_asgi())])})
good_wrapped = ProtocolTypeRouter(
    {
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter([re_path("^a/", URLRouter([path("b/", Derived.as_asgi())]))])
            )
        )
    }
)
good_opaque = ProtocolTypeRouter({"websocket": opaque})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http_only", "ASGI_APPLICATION serves HTTP alone."),
        ("no_sockets", 'The ProtocolTypeRouter of ASGI_APPLICATION has no "websocket".'),
        ("foreign_sockets", "have none of cq."),
        ("nested_foreign", "have none of cq."),
        ("missing", "Cannot find 'missing' in ASGI_APPLICATION module"),
    ],
)
def test_no_socket_of_cq_is_served(settings: Any, name: str, words: str) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.{name}"
    message = only(check_sockets(), "cq.W003")
    assert words in message.msg
    assert message.msg.endswith("Pages that watch tasks will poll.")
    assert "cq.routing.websocket_urlpatterns" in str(message.hint)


def test_no_asgi_application(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert "Cannot find ASGI_APPLICATION" in only(check_sockets(), "cq.W003").msg


@pytest.mark.parametrize("name", ["good", "good_wrapped", "good_opaque", "opaque"])
def test_sockets_of_cq_are_served_or_may_be(settings: Any, name: str) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.{name}"
    assert check_sockets() == []


def test_sockets_that_any_site_may_open(settings: Any) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.good"
    settings.ALLOWED_HOSTS = ["*"]
    assert "ALLOWED_HOSTS = [" in str(only(check_sockets(), "cq.W014").hint)

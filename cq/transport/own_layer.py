"""
Layer instances of a service's own, never shared with another event loop.

A channel layer binds its connections, locks and queues to the loop that uses it first, so
the instance that `get_channel_layer()` hands out is left to the server's loop.
"""

from typing import Any

from channels.layers import BaseChannelLayer, channel_layers

_IN_MEMORY = "channels.layers.InMemoryChannelLayer"


def is_configured(alias: str | None) -> bool:
    """Whether CHANNEL_LAYERS has the alias."""
    return alias is not None and alias in channel_layers


def crosses_processes(alias: str | None) -> bool:
    """Whether a message sent to the layer can reach another loop; the in-memory one cannot."""
    if alias is None or alias not in channel_layers:
        return False
    return bool(channel_layers.configs[alias].get("BACKEND") != _IN_MEMORY)


def make_layer(alias: str, *, connect_timeout: float | None = None) -> BaseChannelLayer:
    """
    Make a fresh instance from the alias's configuration.

    Where the layer has hosts, `connect_timeout` limits connecting to one, unless the
    project says otherwise.
    """
    layer: BaseChannelLayer = channel_layers.make_backend(alias)
    hosts: list[dict[str, Any]] | None = getattr(layer, "hosts", None)
    if hosts and connect_timeout is not None:
        limited = [{"socket_connect_timeout": connect_timeout, **host} for host in hosts]
        layer.hosts = limited  # type: ignore[attr-defined]
    return layer

"""
Routes for the ASGI application of a project: the live socket, and the task channels.

`websocket_urlpatterns` goes into the URLRouter of "websocket", inside AuthMiddlewareStack;
`channel_routing` into a ChannelNameRouter of "channel", for those who run Channels' stock
`runworker` (it executes serially, `cq_runworker` does not).
"""

from channels.routing import ChannelNameRouter
from django.urls import path

from cq.web.consumers import TaskSocket
from cq.worker.serial_host import serial_consumers

websocket_urlpatterns = [path("cq/ws", TaskSocket.as_asgi())]  # type: ignore[arg-type]

channel_routing = ChannelNameRouter(serial_consumers())

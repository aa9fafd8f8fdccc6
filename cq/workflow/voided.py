"""
Telling workers that tokens they hold are void, after a revoke has committed.

The worker of this process is called directly, those of others through the browser layer;
a worker that misses the word learns it with its next heartbeat. It only saves time: the
token is void whether or not anybody hears of it.
"""

from collections.abc import Callable

from cq import conf
from cq.transport import dispatcher
from cq.transport.groups import WORKERS_GROUP
from cq.transport.messages import control_message
from cq.transport.own_layer import crosses_processes

VOID = "void"

_listeners: set[Callable[[], object]] = set()


def listen(on_void: Callable[[], object]) -> None:
    """Call `on_void`, from any thread, when claims were voided by this process."""
    _listeners.add(on_void)


def unlisten(on_void: Callable[[], object]) -> None:
    """Call it no more."""
    _listeners.discard(on_void)


def tell() -> None:
    """Ask every worker to look at its tokens now."""
    for on_void in list(_listeners):
        on_void()
    if crosses_processes(conf.current().browser_layer):
        dispatcher.send_group(WORKERS_GROUP, control_message(VOID))

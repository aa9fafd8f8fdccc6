"""
The dispatcher: how a committed task rings workers, from any thread, at no cost.

`ring()` is on the path of every delay(): it appends to an inbox and returns; a daemon
thread with its own loop and layer instances turns what piled up into few messages. It
never blocks and never raises: rows are found by polling, so the worst that can happen to
a bell is that the task starts a moment later. `send_group()` takes events the same way.

A process that hosts a worker attaches the worker's loop and is rung without any layer;
the layer, where it reaches other processes, is rung as well.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import wait

from django.core.signals import setting_changed

from cq import conf
from cq.transport.attached import AttachedLoop, OnBell
from cq.transport.messages import Message
from cq.transport.own_layer import crosses_processes, is_configured
from cq.transport.sender import BellSender, GroupSender
from cq.transport.sender_thread import SenderThread

EXIT_TIMEOUT = 1.0

logger = logging.getLogger("cq.transport")


class Dispatcher:
    """The state of one process: its attached loop and its sending thread, both optional."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attached: AttachedLoop | None = None
        self._thread: SenderThread | None = None
        self._abandoned: list[object] = []
        self.failures = 0
        self._forget()

    def _forget(self) -> None:
        # `_known` says whether the settings were read; a sender may be None all the same.
        self._known = False
        self._bells: BellSender | None = None
        self._events: GroupSender | None = None
        self._local_events: str | None = None

    def ring(self, queue: str, ids: list[str]) -> None:
        """Ring for committed tasks of a queue, named by hex ids."""
        try:
            if not self._known:
                self._open()
            if (attached := self._living()) is not None:
                attached.ring(queue, ids)
            if self._bells is not None:
                self._bells.inbox.put((queue, ids))
        except Exception as error:  # noqa: BLE001 - the row is committed: nothing here may reach the caller
            self._failed(error)

    def send_group(self, group: str, message: Message) -> None:
        """Send an event to a group of the browser layer."""
        try:
            if not self._known:
                self._open()
            if self._events is not None:
                self._events.inbox.put((group, message))
            elif self._local_events is not None and (attached := self._living()) is not None:
                attached.send(self._local_events, (group, message))
        except Exception as error:  # noqa: BLE001 - events are news, never a reason to fail
            self._failed(error)

    def attach_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        on_bell: OnBell,
        queues: Collection[str] | None = None,
    ) -> None:
        """Ring this loop from now on, for these queues (None: all); replaces another one."""
        self._attached = AttachedLoop(loop, on_bell, queues)

    def detach_loop(self) -> None:
        """Ring the attached loop no more; called on that loop."""
        attached, self._attached = self._attached, None
        if attached is not None:
            attached.close()

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far has left; False when it has not."""
        try:
            senders = [sender for sender in (self._bells, self._events) if sender]
            done, late = wait([sender.flush() for sender in senders], timeout)
            return not late and all(flush.result() for flush in done)
        except RuntimeError:  # the thread has ended
            return False

    def reset(self) -> None:
        """Forget the layers and the thread; the next bell reads the settings anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._forget()
        if thread is not None:
            thread.stop()

    def close(self, timeout: float) -> None:
        """Flush and end the thread, all within the time-out."""
        thread, deadline = self._thread, time.monotonic() + timeout
        if thread is None:
            return
        self.flush(timeout)
        self.reset()
        thread.join(max(0.0, deadline - time.monotonic()))

    def stats(self) -> dict[str, int]:
        """What was sent and lost by this process since its settings were read."""
        bells, events, attached = self._bells, self._events, self._attached
        return {
            "messages": bells.sent if bells else 0,
            "ids_dropped": bells.dropped if bells else 0,
            "rings_dropped": bells.inbox.dropped if bells else 0,
            "channel_full": bells.full if bells else 0,
            "layer_failures": bells.outage.total if bells else 0,
            "events": events.sent if events else 0,
            "events_dropped": events.dropped + events.inbox.dropped if events else 0,
            "event_failures": events.outage.total if events else 0,
            "local_rings": attached.rung if attached else 0,
            "failures": self.failures,
        }

    def after_fork_in_child(self) -> None:
        """Start afresh in a forked child, which has none of the parent's threads."""
        if self._thread is not None:
            self._thread.abandon()
        # Kept, so that no finaliser runs on objects whose other half belongs to the parent.
        self._abandoned += [self._thread, self._attached]
        self._lock = threading.Lock()
        self._thread = None
        self._attached = None
        self._forget()

    def _living(self) -> AttachedLoop | None:
        """The attached loop; one that was closed without a word is detached here."""
        if self._attached is not None and self._attached.loop.is_closed():
            self._attached = None
        return self._attached

    def _open(self) -> None:
        """Read the settings and start the thread if there is a layer to send to."""
        with self._lock:
            if self._known:
                return
            settings = conf.current()
            task_layer, browser_layer = settings.channel_layer, settings.browser_layer
            far_tasks = task_layer if crosses_processes(task_layer) else None
            far_browsers = browser_layer if crosses_processes(browser_layer) else None
            if far_browsers is None and is_configured(browser_layer):
                self._local_events = browser_layer
            if far_tasks or far_browsers:
                thread = SenderThread(far_tasks, far_browsers)
                thread.start()
                self._thread, self._bells, self._events = thread, thread.bells, thread.events
            self._known = True

    def _failed(self, error: Exception) -> None:
        """Note that a bell was lost inside this process, and start afresh with the next."""
        self.failures += 1
        if self.failures == 1:
            logger.warning(
                "The dispatcher cannot ring: %s: %s. Tasks are found by polling; "
                "nothing else is affected.",
                type(error).__name__,
                error,
            )
        self.reset()


_dispatcher = Dispatcher()

ring = _dispatcher.ring
send_group = _dispatcher.send_group
attach_loop = _dispatcher.attach_loop
detach_loop = _dispatcher.detach_loop
flush = _dispatcher.flush
reset = _dispatcher.reset
stats = _dispatcher.stats


def _on_setting_changed(*, setting: str, **_: object) -> None:
    if setting == "CHANNEL_LAYERS" or setting.startswith("CQ"):
        _dispatcher.reset()


setting_changed.connect(_on_setting_changed)
atexit.register(_dispatcher.close, EXIT_TIMEOUT)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_dispatcher.after_fork_in_child)

"""
The heartbeat: a thread with a session of its own that proves the worker alive.

It goes on while the event loop is blocked (a slow body must not look like a dead
worker), but not for ever: after LOOP_STALL_MAX it falls silent, so that others take
over. The same turn asks which of the tokens held here are void by now.
"""

import logging
import threading
from collections.abc import Callable
from uuid import UUID

from django.db import Error, connections

from cq import conf
from cq.failpoints import reached
from cq.models import workers
from cq.models.queries import database
from cq.models.sessions import own_sessions
from cq.models.sql import dialect

logger = logging.getLogger("cq.worker")

_STOP_SECONDS = 1.5


class Heartbeat:
    """Beats for one worker row from its own thread."""

    def __init__(
        self,
        worker: UUID,
        *,
        held: Callable[[], list[tuple[UUID, UUID]]],
        void: Callable[[list[UUID]], object],
        declared_dead: Callable[[UUID], object],
        stalled_for: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.worker = worker
        self.state = "running"
        self._held = held
        self._void = void
        self._declared_dead = declared_dead
        self._stalled_for = stalled_for
        self._stopping = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cq-heartbeat", daemon=True)
        self._is_down = False
        self.beats = 0

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def beat_now(self) -> None:
        """Beat, and ask about the tokens, without waiting for the next turn."""
        self._now.set()

    def stop(self) -> None:
        """Fall silent, after a beat in flight."""
        self._stopping.set()
        self._now.set()
        self._thread.join(timeout=_STOP_SECONDS)

    def _run(self) -> None:
        own_sessions()
        while not self._stopping.is_set():
            settings = conf.current()
            if self._stalled_for() < settings.loop_stall_max:
                self._beat()
            self._now.wait(settings.heartbeat)
            self._now.clear()
        connections.close_all()

    def _beat(self) -> None:
        try:
            reached("before_beat")
            db = dialect()
            worker, held = self.worker, self._held()
            if not workers.beat(db, worker, self.state):
                self._declared_dead(worker)
            elif void := workers.void_tokens(db, held):
                self._void(void)
            reached("after_beat")
            self.beats += 1
            self._is_down = False
        except Error as problem:
            if not self._is_down:
                logger.warning("The heartbeat waits for the database: %s", problem)
            self._is_down = True
            connections[database()].close()
        except Exception:  # a heart that stops for good makes a dead worker of a living one
            logger.exception("A heartbeat failed; the next one comes in its time.")

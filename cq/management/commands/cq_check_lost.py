"""
cq_check_lost: look for dead workers now, and free what they held.

A worker on this host whose process has ended is found at once. One elsewhere is judged by
its heartbeat, which takes a lease of watching: `--watch`. Tasks run again, or are Lost when
their budget of crashes is spent; running workers do all this by themselves.
"""

import threading
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from cq import conf
from cq.aio import Lane
from cq.definition.status import Status
from cq.management.base import TaskCommand
from cq.models import Task, Worker
from cq.models.queries import database
from cq.worker.rescuer import Rescuer


class Command(TaskCommand):
    """Look for dead workers; `--watch` waits for those on other hosts."""

    help = "Find dead workers and rescue their tasks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--watch", action="store_true", help="watch the heartbeats for a whole lease"
        )

    def handle(self, **options: Any) -> None:
        rescuer = Rescuer(Lane("cq-check-lost"), lambda: UUID(int=0))
        alive = Worker.objects.using(database()).filter(alive=True)
        before = {worker.pk: str(worker) for worker in alive}
        lost = self.count_lost()
        rescued = rescuer.look()
        settings = conf.current()
        pause = threading.Event()
        left = settings.lease + settings.heartbeat if options["watch"] else 0.0
        while left > 0:
            pause.wait(min(settings.heartbeat, left))
            left -= settings.heartbeat
            rescued += rescuer.look()
        still = set(alive.values_list("pk", flat=True))
        for pk, name in before.items():
            if pk not in still:
                self.stdout.write(f"Worker {name} is dead.")
        self.stdout.write(
            f"{len(still)} live workers, {rescued} tasks rescued, "
            f"{self.count_lost() - lost} of them Lost."
        )

    def count_lost(self) -> int:
        return Task.objects.using(database()).filter(status=Status.LOST).count()

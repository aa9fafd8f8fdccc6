"""
What a transaction leaves to be told once it has committed.

Bells for tasks that became claimable, news for those who watch a tree, signals. It is
gathered while the transaction runs and told by `on_commit(robust=True)`, so that nothing
leaves the process for rows that are rolled back, and no listener can harm the writer.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

from cq.definition.status import TERMINAL
from cq.failpoints import reached
from cq.models.sql import Dialect, database
from cq.models.streams import Recorded, TreeChange, count_open, move_records
from cq.models.task import Task
from cq.models.transitions import Inserted, Moved
from cq.progress import publisher
from cq.signals import task_enqueued, task_finished
from cq.transport import dispatcher


@dataclass(slots=True)
class Aftermath:
    """The changes of one transaction, as others will hear of them."""

    bells: dict[str, list[UUID]] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    over: list[UUID] = field(default_factory=list)
    trees: dict[UUID, TreeChange] = field(default_factory=dict)
    alone: set[UUID] = field(default_factory=set)
    recorded: list[Recorded] = field(default_factory=list)
    adopted: dict[UUID, UUID] = field(default_factory=dict)
    """Trees that became part of others: from the old root to the new one."""
    made: list[Task] = field(default_factory=list)
    """Rows that a body planned, for the receivers of `task_enqueued`."""
    attempts: dict[UUID, int] = field(default_factory=dict)
    """The attempts that ended in this transaction, by their tasks."""

    def ring(self, queue: str, ids: Iterable[UUID]) -> None:
        """Some tasks of a queue became claimable."""
        self.bells.setdefault(queue, []).extend(ids)

    def inserted(self, rows: Iterable[Inserted]) -> None:
        """New rows that wait for a worker; one whose time is to come sets a worker's timer."""
        first: dict[str, Inserted] = {}
        for row in rows:
            if row.is_due:
                self.ring(row.queue, [row.id])
            elif row.queue not in first or row.run_at < first[row.queue].run_at:
                first[row.queue] = row
        for queue, row in first.items():
            self.ring(queue, [row.id])

    def tree(self, root: UUID) -> TreeChange:
        """The change of one tree's number of open tasks."""
        return self.trees.setdefault(root, TreeChange())

    def ended(self, rows: Iterable[Moved]) -> None:
        """Tasks that are open no more."""
        for row in rows:
            self.moved.append(row)
            self.tree(row.root_uuid).delta -= 1

    def ended_alone(self, rows: Sequence[Moved]) -> None:
        """Trees of one task each that are over, and had no stream when it ended."""
        self.moved += rows
        self.alone |= {row.id for row in rows}

    def grown(self, root: UUID, count: int, *, base: int = 1) -> None:
        """A tree got new tasks; `base` were open before if it has no stream row yet."""
        change = self.tree(root)
        change.delta += count
        change.base = base
        change.grows = True

    def adopt(self, root: UUID, by: UUID) -> None:
        """A tree became part of another, with those that it had adopted itself."""
        self.adopted = {
            source: by if target == root else target for source, target in self.adopted.items()
        }
        self.adopted[root] = by
        # The adopter counts all rows of the tree; its own stream is about to go.
        self.trees.pop(root, None)

    def move_records(self, db: Dialect) -> None:
        """Append the records of adopted trees to their new ones; before any other stream."""
        if self.adopted:
            move_records(db, self.adopted, also=self.trees)
            self.adopted = {}

    def count(self, db: Dialect) -> None:
        """Write the streams: the last statements of the transaction."""
        self.move_records(db)
        # The last lines of a task that ran alone have made it a stream after all.
        for root in self.alone & {line.root for line in self.recorded}:
            self.tree(root).delta -= 1
            self.alone.discard(root)
        self.over += [*self.alone, *count_open(db, self.trees)]
        self.trees, self.alone = {}, set()

    def tell_after_commit(self) -> None:
        """Tell everything once the surrounding transaction has committed."""
        # No partial: Django 5.2 asks a robust callback that raised for its name.
        transaction.on_commit(lambda: tell(self), using=database(), robust=True)


class Endings:
    """Waiters of this process, woken when their task ends in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[UUID, list[Callable[[], object]]] = {}

    @contextmanager
    def listening(
        self, task: UUID, wake: Callable[[], object] | None = None
    ) -> Iterator[threading.Event]:
        """Call `wake`, or set the event that is yielded, when the task ends."""
        event = threading.Event()
        call = wake or event.set
        with self._lock:
            self._waiting.setdefault(task, []).append(call)
        try:
            yield event
        finally:
            with self._lock:
                calls = self._waiting[task]
                calls.remove(call)
                if not calls:
                    del self._waiting[task]

    def tell(self, moved: Iterable[Moved]) -> None:
        """Wake those who wait for one of these, if it has ended."""
        if not self._waiting:
            return
        for row in moved:
            if row.status in TERMINAL and row.id in self._waiting:
                with self._lock:
                    calls = list(self._waiting.get(row.id, ()))
                for call in calls:
                    call()


endings = Endings()


def tell(aftermath: Aftermath) -> None:
    """Ring and publish; called after the commit, never raises what a layer does."""
    reached("before_ring", aftermath.moved)
    for queue, ids in aftermath.bells.items():
        dispatcher.ring(queue, [id.hex for id in ids])
    endings.tell(aftermath.moved)
    tell_lines(aftermath.recorded)
    watched: dict[str, list[Moved]] = {}
    for row in aftermath.moved:
        root = row.root_uuid.hex
        if publisher.watched(root):
            watched.setdefault(root, []).append(row)
    for root, rows in watched.items():
        publisher.states(root, [_node(row) for row in rows])
    for over in aftermath.over:
        publisher.end(over.hex)
    _send_signals(aftermath)


def nudge_after_commit(moved: Iterable[Moved]) -> None:
    """Make those who watch these trees read the rows, also where nobody knows of them."""
    roots = {row.root_uuid.hex for row in moved}

    def nudge() -> None:
        for root in roots:
            publisher.nudge(root)

    transaction.on_commit(nudge, using=database(), robust=True)


def _send_signals(aftermath: Aftermath) -> None:
    # Last, since receivers take their time; robust, since they are not ours.
    for task in aftermath.made:
        task_enqueued.send_robust(sender=Task, task=task)
    if task_finished.receivers:
        for row in aftermath.moved:
            if row.status in TERMINAL:
                task_finished.send_robust(
                    sender=Task,
                    task_id=row.id,
                    func_name=row.func_name,
                    attempt=aftermath.attempts.get(row.id),
                    status=row.status,
                )


def _node(row: Moved) -> publisher.Node:
    return publisher.node(row.id, name=row.func_name, status=row.status, parent=row.parent)


def tell_lines(recorded: Iterable[Recorded]) -> None:
    """Publish recorded lines of watched trees."""
    watched: dict[str, list[publisher.Line]] = {}
    for item in recorded:
        root = item.root.hex
        if publisher.watched(root):
            line = item.line
            watched.setdefault(root, []).append(
                publisher.line(
                    seq=item.seq,
                    task=line.task,
                    name=line.func_name,
                    attempt=line.attempt,
                    level=line.level,
                    message=line.message,
                    at=line.at,
                )
            )
    for root, lines in watched.items():
        publisher.lines(root, lines)

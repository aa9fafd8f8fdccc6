"""
What a transaction leaves to be told once it has committed.

Bells for tasks that became claimable, news for those who watch a tree, signals. It is
gathered while the transaction runs and told by `on_commit(robust=True)`, so that nothing
leaves the process for rows that are rolled back, and no listener can harm the writer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from django.db import transaction

from cq.models.sql import Dialect, database
from cq.models.streams import TreeChange, count_open
from cq.models.transitions import Inserted, Moved
from cq.progress import publisher
from cq.transport import dispatcher


@dataclass(slots=True)
class Aftermath:
    """The changes of one transaction, as others will hear of them."""

    bells: dict[str, list[UUID]] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    over: list[UUID] = field(default_factory=list)
    trees: dict[UUID, TreeChange] = field(default_factory=dict)

    def ring(self, queue: str, ids: Iterable[UUID]) -> None:
        """Some tasks of a queue became claimable."""
        self.bells.setdefault(queue, []).extend(ids)

    def inserted(self, rows: Iterable[Inserted]) -> None:
        """New rows; those that are due now need a bell."""
        for row in rows:
            if row.is_due:
                self.ring(row.queue, [row.id])

    def tree(self, root: UUID) -> TreeChange:
        """The change of one tree's number of open tasks."""
        return self.trees.setdefault(root, TreeChange())

    def ended(self, rows: Iterable[Moved]) -> None:
        """Tasks that are open no more."""
        for row in rows:
            self.moved.append(row)
            self.tree(row.root_uuid).delta -= 1

    def grown(self, root: UUID, count: int, *, base: int = 1) -> None:
        """A tree got new tasks; `base` were open before if it has no stream row yet."""
        change = self.tree(root)
        change.delta += count
        change.base = base
        change.grows = True

    def count(self, db: Dialect) -> None:
        """Write the streams: the last statements of the transaction."""
        self.over += count_open(db, self.trees)
        self.trees = {}

    def tell_after_commit(self) -> None:
        """Tell everything once the surrounding transaction has committed."""
        transaction.on_commit(partial(tell, self), using=database(), robust=True)


def tell(aftermath: Aftermath) -> None:
    """Ring and publish; called after the commit, never raises what a layer does."""
    for queue, ids in aftermath.bells.items():
        dispatcher.ring(queue, [id.hex for id in ids])
    if publisher.anybody():
        publisher.moved(aftermath.moved, aftermath.over)

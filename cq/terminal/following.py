"""
Following one task in the rows, from wherever this process runs.

Enters: a task, and the number of the last line that is known. Leaves: at each look the
lines that were recorded since, in their order and without a hole, the drawn tree, and, in
the end, the code that a script can ask for. The rows are all it needs: no layer, no socket.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

from django.db import connections

from cq.errors import CQError
from cq.models import Task
from cq.models.queries import database
from cq.progress.publisher import Line, Node
from cq.terminal.branches import ENDED, Branch, branches
from cq.web.snapshot import Rows, Want, read

TAIL = 1000
"""Lines that somebody sees who comes late and names no number."""

_SHORTEST, _LONGEST, _GROWTH = 0.1, 1.0, 1.5
_SHARE = 10.0


class WatchCode(IntEnum):
    """How a watch ended; the exit codes of `cq_watch` and `cq_run --wait`."""

    SUCCESS = 0
    FAILURE = 1
    REVOKED = 2
    NOT_FOUND = 3
    TIMEOUT = 124
    INTERRUPTED = 130


@dataclass(slots=True)
class Look:
    """What one look found; `code` is None while the task, or what it carries, is open."""

    lines: list[Line] = field(default_factory=list)
    tree: list[Branch] = field(default_factory=list)
    code: WatchCode | None = None
    failed: UUID | None = None


class Follower:
    """Looks at one task again and again; `since` is the number of the last line it gave out."""

    def __init__(self, task: Task, since: int | None = None) -> None:
        self.id = task.id
        self.root = task.root_uuid
        self.since = since or 0
        self._tail = TAIL if since is None else None
        self._family: dict[str, bool] = {str(task.id): True}

    def look(self) -> Look:
        """Read the rows once; raises CQError when the task is no longer kept."""
        look = Look()
        while True:
            want = Want(self.root, (self.id,), since=self.since, tail=self._tail, tree=True)
            rows = read([want])[self.root]
            if rows.gone or rows.moved or not any(_is(node, self.id) for node in rows.nodes):
                self._find_again()
                continue
            look.lines += self._own(rows.lines)
            if rows.lines:
                self.since, self._tail = rows.lines[-1]["seq"] or self.since, None
            if rows.is_complete:
                break
        look.tree = branches(rows, str(self.id))
        look.code, look.failed = self._judge(rows)
        return look

    def _find_again(self) -> None:
        """The tree may have been adopted by another one, whose record it now shares."""
        row = Task.objects.using(database()).filter(pk=self.id).first()
        if row is None or row.root_uuid == self.root:
            raise CQError(
                f"Task {self.id} is no longer in the database. It was pruned after its time while "
                "it was watched. Raise its result_ttl to keep it longer."
            )
        self.root, self.since = row.root_uuid, 0

    def _own(self, lines: Iterable[Line]) -> list[Line]:
        """The lines of this task and of those below it; of a root they are all."""
        lines = list(lines)
        if self.id != self.root:
            self._climb({line["task"] for line in lines}.difference(self._family))
            lines = [line for line in lines if self._family[line["task"]]]
        return lines

    def _climb(self, unknown: set[str]) -> None:
        parents: dict[str, str | None] = {}
        level = unknown
        while level:
            ids = [UUID(id) for id in level]
            rows = Task.objects.using(database()).filter(pk__in=ids).values_list("id", "parent_id")
            found = {str(id): None if parent is None else str(parent) for id, parent in rows}
            parents |= dict.fromkeys(level) | found
            level = {p for p in found.values() if p and p not in parents and p not in self._family}
        for id in unknown:
            above: str | None = id
            while above is not None and above not in self._family:
                above = parents.get(above)
            self._family[id] = above is not None and self._family[above]

    def _judge(self, rows: Rows) -> tuple[WatchCode | None, UUID | None]:
        """Of a root what is chained behind it counts too: it has ended when its tree has."""
        own = next(node for node in rows.nodes if _is(node, self.id))
        chain = [own]
        if self.id == self.root:
            chain += [node for node in rows.nodes if node["previous"] and not node["parent"]]
            if not rows.ended:
                return None, None
        if any(node["status"] not in ENDED for node in chain[:1]):
            return None, None
        for node in chain:
            if node["status"] in ("failure", "incomplete", "lost"):
                return WatchCode.FAILURE, UUID(node["id"])
        if any(node["status"] == "revoked" for node in chain):
            return WatchCode.REVOKED, None
        return WatchCode.SUCCESS, None


class Pace:
    """
    How long to wait before the next look: short after news, longer while there are none.

    A look at a large tree costs more, so it also comes later: looking takes a tenth of the
    time at most.
    """

    def __init__(self) -> None:
        self.seconds = _SHORTEST
        self._began = time.monotonic()

    def begin(self) -> None:
        """A look begins."""
        self._began = time.monotonic()

    def end(self, has_news: bool) -> float:
        """A look ended; return the seconds until the next one."""
        longer = min(self.seconds * _GROWTH, _LONGEST)
        self.seconds = _SHORTEST if has_news else longer
        return max(self.seconds, _SHARE * (time.monotonic() - self._began))


def drop_connection() -> None:
    """After an error of the database: let the next look connect anew."""
    connections[database()].close()


def error_of(id: UUID) -> str:
    """Return the last line of a task's error."""
    text = Task.objects.using(database()).filter(pk=id).values_list("error", flat=True).first()
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else ""


def _is(node: Node, id: UUID) -> bool:
    return bool(node["id"] == str(id))

"""
Snapshot: what watchers need from the rows, a few statements for all that is watched.

What enters is a list of wants, one per tree; what leaves is a Rows for each. States are
read before lines, so that a terminal status is never older than the lines it comes with.
Everything is synchronous and only reads.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Count

from cq.definition.status import TERMINAL, Status
from cq.models import LogLine, Progress, Stream, Task
from cq.models.sql import database
from cq.progress.publisher import Line, Node, line, node

MAX_NODES = 1000
PAGE = 1000

_COLUMNS = (
    "id",
    "root_id",
    "parent_id",
    "previous_id",
    "func_name",
    "status",
    "attempts",
    "run_at",
    "submitted",
    "started",
    "finished",
    "children_open",
    "children_failed",
)


@dataclass(frozen=True, slots=True)
class Want:
    """
    What to read of one tree.

    `tasks` are the ids whose state is wanted (none: the lines alone), `since` the number
    of the last line that is known (None: no lines), `tail` how many of the last lines are
    enough, `tree` whether the other nodes are wanted as well.
    """

    root: UUID
    tasks: tuple[UUID, ...] = ()
    since: int | None = None
    tail: int | None = None
    tree: bool = False


@dataclass(slots=True)
class Rows:
    """
    What was read of one tree.

    `ended` says that nothing of the tree is open, `gone` that its root is no longer kept,
    `moved` that it was adopted: it now belongs to another tree, with a record of its own.
    `seq` is the number of the last line there was when the states were read.
    """

    seq: int = 0
    ended: bool = False
    gone: bool = False
    moved: bool = False
    nodes: list[Node] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    counts: list[dict[str, Any]] | None = None
    truncated: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the lines go on to `seq`; one page may not be enough."""
        return len(self.lines) < PAGE or (self.lines[-1]["seq"] or 0) >= self.seq > 0


def read(wants: Sequence[Want]) -> dict[UUID, Rows]:
    """Read what is wanted of some trees; a tree without a row is `gone`."""
    found = {want.root: Rows() for want in wants}
    heads = [want for want in wants if want.tasks]
    if heads:
        _read_heads(heads, found)
    for want in wants:
        rows = found[want.root]
        if want.tree and not rows.gone:
            _read_tree(want, rows)
        if want.since is not None and not (want.tasks and rows.seq <= want.since):
            after = max(want.since, rows.seq - want.tail) if want.tail is not None else want.since
            rows.lines = read_lines(want.root, after, PAGE)
    return found


def read_lines(root: UUID, after: int, limit: int, *, task: UUID | None = None) -> list[Line]:
    """Read the lines of a tree, or of one task of it, that follow number `after`."""
    lines = LogLine.objects.using(database()).filter(root=root, seq__gt=after)
    if task is not None:
        lines = lines.filter(task=task)
    return [
        line(seq=seq, task=task, name=name, attempt=attempt, level=level, message=message, at=at)
        for seq, task, name, attempt, level, message, at in lines.order_by("seq").values_list(
            "seq", "task", "func_name", "attempt", "level", "message", "at"
        )[:limit]
    ]


def read_outcome(task: UUID, scopes: Iterable[str]) -> dict[str, Any]:
    """Read the result and the error of a task, as far as the scopes allow."""
    columns = [name for name in ("result", "error") if name in scopes]
    if not columns:
        return {}
    found = Task.objects.using(database()).filter(pk=task).values(*columns).first()
    return found or {}


def _read_heads(wants: Sequence[Want], found: dict[UUID, Rows]) -> None:
    ids = {task for want in wants for task in (want.root, *want.tasks)}
    alias = database()
    streams = {
        root: (seq, tree_open)
        for root, seq, tree_open in Stream.objects.using(alias)
        .filter(root__in=[want.root for want in wants])
        .values_list("root", "seq", "tree_open")
    }
    tasks = {row["id"]: row for row in _rows(Task.objects.using(alias).filter(id__in=ids))}
    progress = _progress_of(Progress.objects.using(alias).filter(task__in=ids))
    totals = _children_of([task for task in ids if _may_have_children(tasks.get(task))])
    for want in wants:
        rows, root = found[want.root], tasks.get(want.root)
        rows.seq, tree_open = streams.get(want.root, (0, 0))
        if root is None:
            rows.gone = True
            continue
        rows.moved = root["root_id"] is not None
        rows.ended = root["status"] in TERMINAL and tree_open <= 0
        rows.nodes = [
            _node(tasks[task], progress.get(task), totals.get(task, 0))
            for task in want.tasks
            if task in tasks
        ]


def _read_tree(want: Want, rows: Rows) -> None:
    alias = database()
    tree = Task.objects.using(alias).filter(root=want.root)
    members = _rows(tree.order_by("id"), limit=MAX_NODES)
    rows.truncated = len(members) == MAX_NODES
    progress = _progress_of(Progress.objects.using(alias).filter(root=want.root))
    known = {entry["id"] for entry in rows.nodes}
    totals = Counter(row["parent_id"] for row in members if row["parent_id"])
    rows.nodes += [
        _node(row, progress.get(row["id"]), None if rows.truncated else totals[row["id"]])
        for row in members
        if str(row["id"]) not in known
    ]
    if rows.truncated:
        rows.counts = [
            {"name": name, "status": Status(status).name.lower(), "count": count}
            for name, status, count in tree.values("func_name", "status")
            .annotate(count=Count("id"))
            .order_by("func_name", "status")
            .values_list("func_name", "status", "count")
        ]


def _rows(tasks: Any, limit: int | None = None) -> list[dict[str, Any]]:
    return list(tasks.values(*_COLUMNS)[:limit])


def _progress_of(rows: Any) -> dict[UUID, dict[str, Any]]:
    return {
        task: {"done": done, "total": total, "message": message}
        for task, done, total, message in rows.values_list("task", "done", "total", "message")
    }


def _may_have_children(row: dict[str, Any] | None) -> bool:
    return row is not None and (row["status"] == Status.WAITING or row["status"] in TERMINAL)


def _children_of(parents: Sequence[UUID]) -> dict[UUID, int]:
    totals: dict[UUID, int] = defaultdict(int)
    if parents:
        children = Task.objects.using(database()).filter(parent__in=parents).values("parent_id")
        totals.update(children.annotate(count=Count("id")).values_list("parent_id", "count"))
    return totals


def _node(row: dict[str, Any], progress: dict[str, Any] | None, children: int | None) -> Node:
    facts: dict[str, Any] = {
        "parent": row["parent_id"],
        "previous": row["previous_id"],
        "name": row["func_name"],
        "status": row["status"],
        "attempt": row["attempts"],
        "due": row["run_at"],
        "submitted": row["submitted"],
        "started": row["started"],
        "finished": row["finished"],
        "children_open": row["children_open"],
        "children_failed": row["children_failed"],
        "progress": progress,
    }
    if children is not None:
        facts["children"] = children
    return node(row["id"], **facts)

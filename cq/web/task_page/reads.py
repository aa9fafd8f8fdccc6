"""
What the page of a task shows, read in a constant number of statements.

A grant enters; what leaves is a Picture, in which everything that the grant's scopes do not
name is missing, not hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models.functions import Now
from django.http import Http404

from cq.definition.payload import mask
from cq.models import LogLine, Task
from cq.models.sql import database
from cq.progress.publisher import Line, Node, line
from cq.web import snapshot
from cq.web.access import Grant
from cq.web.task_page import waiting

TAIL = 1000

_PAYLOAD = ("args", "kwargs", "result", "previous_result")
_ERRORS = ("error", "errors")
_NEVER_SHOWN = ("errorbacks", "traceparent", "unique_key", "claim_token", "done_token")


@dataclass(frozen=True, slots=True)
class Picture:
    """A task as its page shows it."""

    grant: Grant
    task: Task
    now: datetime
    why: str
    node: Node
    nodes: list[Node]
    counts: list[dict[str, Any]] | None
    lines: list[Line]
    seq: int
    """Up to which number of the tree's record the lines are known."""

    @property
    def is_root(self) -> bool:
        """Whether the task heads its tree."""
        return self.grant.task == self.grant.root

    @property
    def payload(self) -> dict[str, Any] | None:
        """Arguments and result, masked, for those who may see them."""
        if "result" not in self.grant.scopes:
            return None
        task = self.task
        shown = {"arguments": mask(task.args), "keyword arguments": mask(task.kwargs)}
        if task.pass_result:
            shown["result of the predecessor"] = mask(task.previous_result)
        if task.status == "S":
            shown["result"] = mask(task.result)
        return shown

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The failed attempts, oldest first, for those who may see errors."""
        if "error" not in self.grant.scopes or not isinstance(self.task.errors, list):
            return []
        return [entry for entry in self.task.errors if isinstance(entry, dict)]


def read_facts(grant: Grant) -> tuple[Task, datetime, str]:
    """Read the row, the database's clock, and why the task waits."""
    hidden = [*_NEVER_SHOWN]
    if "result" not in grant.scopes:
        hidden += _PAYLOAD
    if "error" not in grant.scopes:
        hidden += _ERRORS
    rows = Task.objects.using(database()).select_related("worker").defer(*hidden)
    task: Any = rows.annotate(clock=Now()).filter(pk=grant.task).first()
    if task is None:
        raise Http404
    return task, task.clock, waiting.why(waiting.facts_of(task, task.clock))


def read(grant: Grant) -> Picture:
    """Read everything that the page shows."""
    has_tree, has_log = "tree" in grant.scopes, "log" in grant.scopes
    is_root = grant.task == grant.root
    want = snapshot.Want(
        grant.root,
        tasks=tuple({grant.root, grant.task}),
        since=0 if has_log and is_root else None,
        tail=TAIL,
        tree=has_tree,
    )
    rows = snapshot.read([want])[grant.root]
    node = next((one for one in rows.nodes if one["id"] == str(grant.task)), None)
    if node is None:
        raise Http404
    task, now, why = read_facts(grant)
    return Picture(
        grant=grant,
        task=task,
        now=now,
        why=why,
        node=node,
        nodes=rows.nodes if has_tree else [node],
        counts=rows.counts if has_tree and is_root else None,
        lines=rows.lines if is_root or not has_log else own_lines(grant),
        seq=rows.seq,
    )


def own_lines(
    grant: Grant,
    *,
    before: int | None = None,
    after: int | None = None,
    level: int | None = None,
    text: str = "",
    limit: int = TAIL,
) -> list[Line]:
    """Read lines of the record that a grant shows, the last ones unless `after` is given."""
    lines = LogLine.objects.using(database()).filter(root=grant.root)
    if grant.task != grant.root:
        lines = lines.filter(task=grant.task)
    if before is not None:
        lines = lines.filter(seq__lt=before)
    if after is not None:
        lines = lines.filter(seq__gt=after)
    if level is not None:
        lines = lines.filter(level__gte=level)
    if text:
        lines = lines.filter(message__icontains=text)
    from_start = after is not None
    found = lines.order_by("seq" if from_start else "-seq").values_list(
        "seq", "task", "func_name", "attempt", "level", "message", "at"
    )[:limit]
    return _in_order(found, from_start=from_start)


def _in_order(found: Any, *, from_start: bool) -> list[Line]:
    made: Sequence[Line] = [
        line(seq=seq, task=task, name=name, attempt=attempt, level=level, message=message, at=at)
        for seq, task, name, attempt, level, message, at in found
    ]
    return list(made) if from_start else list(made[::-1])

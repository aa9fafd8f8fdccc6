"""
The verdict: what became of everything that was enqueued, and which promise was broken.

It compares the rows, the effects, the record and the ledger with what `kinds.EXPECTED` says.
Attempted and acknowledged come from whoever enqueued; recovered are tasks that ended as they
should although an attempt of theirs was lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from cq.definition.status import TERMINAL, Status
from cq.models import LogLine, Task
from cq.workflow.checker import check
from cq.workflow.settle import ERRORBACK_TASK
from tests.faults.ledger import ARROWS, Entry, entries
from tests.sampleapp.kinds import EXPECTED, head, tail
from tests.sampleapp.models import Effect

SHOWN = 5
PROMISES = {
    "lost": "P1: a committed task comes to an end",
    "stray": "P2: what was rolled back never was",
    "arrow": "P4: the history of a status is a path of the state machine",
    "body": "P6: per claim the body starts at most once",
    "end": "P7: the end is that of the valid attempt",
    "atomic": "P8: an atomic effect is there exactly once for a Success, and not otherwise",
    "parent": "P17: a parent ends once, after its children",
    "children": "P18: the children of a void attempt never exist",
    "link": "P19: a link starts once, after its predecessor, with its result",
    "rows": "P20: the rows do not contradict each other",
    "record": "P23: the record is 1, 2, 3 … and each line is there once",
}


@dataclass(slots=True)
class Verdict:
    """The counts, and what is wrong by the promise it breaks."""

    attempted: int
    acknowledged: int
    tasks: int = 0
    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    recovered: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = (
            f"attempted {self.attempted}, acknowledged {self.acknowledged}, rows {self.tasks}, "
            f"lost {self.lost}, duplicated {self.duplicated}, unexpected {self.unexpected}, "
            f"recovered {self.recovered}"
        )
        wrong = [
            f"  broken {PROMISES[key]}: {len(found)}, such as {'; '.join(found[:SHOWN])}"
            for key, found in self.broken.items()
        ]
        return "\n".join([counts, *wrong])

    def add(self, promise: str, what: str) -> None:
        """Something breaks a promise."""
        self.broken.setdefault(promise, []).append(what)


def judge(acknowledged: Collection[UUID], *, attempted: int | None = None) -> Verdict:
    """
    Look at everything that is in the database; call it when all should have ended.

    An atomic task into whose completion a failpoint raised has failed, as its error says, and
    then its parent is Incomplete: that is no surprise, and the task must have had no effect.
    """
    verdict = Verdict(attempted or len(acknowledged), len(acknowledged))
    rows = {row.id: row for row in Task.objects.defer("args", "kwargs", "errorbacks")}
    verdict.tasks = len(rows)
    for id in set(acknowledged) - set(rows):
        verdict.lost += 1
        verdict.add("lost", f"{id} was acknowledged, and is not there")
    _judge_ends(verdict, rows)
    _judge_effects(verdict, rows)
    _judge_errorbacks(verdict)
    _judge_history(verdict, rows, entries())
    _judge_record(verdict, rows)
    for discrepancy in check().found:
        verdict.add("rows", str(discrepancy))
    return verdict


def _known(rows: dict[UUID, Task]) -> Iterator[Task]:
    return (row for row in rows.values() if row.func_name in EXPECTED)


def _judge_ends(verdict: Verdict, rows: dict[UUID, Task]) -> None:
    children = Counter(row.parent_id for row in rows.values() if row.parent_id)
    for row in rows.values():
        if row.status not in TERMINAL:
            verdict.lost += 1
            verdict.add("lost", f"{row.func_name} {row.id} is {Status(row.status).name}")
    for row in _known(rows):
        expected = EXPECTED[row.func_name]
        if row.status in TERMINAL and row.status != expected.status and not _is_injected(row):
            verdict.unexpected += 1
            verdict.add("end", f"{row.func_name} {row.id} is {row.status}: {row.error}")
        elif row.status in TERMINAL and row.crashes + row.releases:
            verdict.recovered += 1
        wanted = {expected.children}
        if expected.status is Status.REVOKED:
            wanted.add(0)
        if row.status in TERMINAL and children[row.id] not in wanted and not _is_injected(row):
            verdict.duplicated += children[row.id] > expected.children
            verdict.add("children", f"{row.func_name} {row.id} has {children[row.id]} children")


def _is_injected(row: Task) -> bool:
    says_so = "The failpoint" in (row.error or "")
    return says_so and row.status in (Status.FAILURE, Status.INCOMPLETE)


def _judge_effects(verdict: Verdict, rows: dict[UUID, Task]) -> None:
    effects = list(Effect.objects.values_list("task", "attempt", "kind"))
    written = Counter(task for task, _, kind in effects if not kind.startswith("told"))
    for (task, attempt, kind), count in Counter(effects).items():
        # A release gives the number of its attempt back.
        if attempt and count > 1 + (rows[task].releases if task in rows else 0):
            verdict.duplicated += 1
            verdict.add("body", f"attempt {attempt} of {task} left {count} effects {kind!r}")
    for task in written.keys() - rows.keys():
        verdict.add("stray", f"effects of {task}, which is no task")
    for row in _known(rows):
        expected, count = EXPECTED[row.func_name], written[row.id]
        if expected.effects is not None:
            wanted = expected.effects if row.status in (expected.status, Status.INCOMPLETE) else 0
            if count != wanted:
                verdict.duplicated += count > wanted
                verdict.add("atomic", f"{row.func_name} {row.id} left {count}, not {wanted}")
        elif not count:
            verdict.add("end", f"{row.func_name} {row.id} left no effect")
        if (
            row.func_name == tail.name
            and not _is_injected(row)
            and (row.id, f"tail {7}")
            not in {(task, kind) for task, _, kind in effects if task == row.id}
        ):
            verdict.add("link", f"{row.id} did not get the result of its predecessor")


def _judge_errorbacks(verdict: Verdict) -> None:
    calls = Task.objects.filter(func_name=ERRORBACK_TASK).values_list("args", "status")
    told = Counter(UUID(args[0]) for args, _ in calls)
    done = {UUID(args[0]) for args, status in calls if status == Status.SUCCESS}
    noted = set(Effect.objects.filter(kind__startswith="told").values_list("task", flat=True))
    wanted = Task.objects.filter(status=Status.FAILURE).exclude(errorbacks=[])
    for id, errorbacks in wanted.values_list("id", "errorbacks"):
        if told[id] != len(errorbacks):
            verdict.duplicated += told[id] > len(errorbacks)
            verdict.add("link", f"{told[id]} errorbacks of {id} were called")
    for id in done - noted:
        verdict.add("link", f"the errorback of {id} ended well, and did nothing")


def _judge_history(verdict: Verdict, rows: dict[UUID, Task], history: list[Entry]) -> None:
    ended: dict[UUID, int] = {}
    for entry in history:
        if (entry.old, entry.new) not in ARROWS:
            verdict.add("arrow", str(entry))
        if entry.new in TERMINAL:
            if entry.task in ended:
                verdict.duplicated += 1
                verdict.add("parent", f"{entry} after it had ended")
            ended[entry.task] = entry.number
        if entry.new is Status.QUEUED and entry.old is Status.PENDING:
            before = rows.get(entry.previous) if entry.previous else None
            if before is not None and before.func_name == head.name and before.id not in ended:
                verdict.add("link", f"{entry} before its predecessor had ended")
    for row in rows.values():
        above = row.parent_id
        if above in ended and ended.get(row.id, 0) > ended[above] and not _is_revoked(rows, above):
            verdict.add("parent", f"{above} ended before its child {row.id}")


def _is_revoked(rows: dict[UUID, Task], id: UUID) -> bool:
    return id in rows and rows[id].status == Status.REVOKED


def _judge_record(verdict: Verdict, rows: dict[UUID, Task]) -> None:
    sequences: dict[UUID, list[int]] = {}
    lines: Counter[tuple[UUID, int, str]] = Counter()
    for root, seq, task, attempt, message in LogLine.objects.order_by("seq").values_list(
        "root", "seq", "task", "attempt", "message"
    ):
        sequences.setdefault(root, []).append(seq)
        lines[task, attempt, message] += 1
    for root, found in sequences.items():
        if found != list(range(1, len(found) + 1)):
            verdict.add("record", f"the lines of {root} are {found[:9]}")
    for (task, attempt, message), count in lines.items():
        if count > 1 + (rows[task].releases if task in rows else 0):
            verdict.duplicated += 1
            verdict.add("record", f"{message!r} of {task}, attempt {attempt}: {count} times")

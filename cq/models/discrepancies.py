"""
Where rows contradict each other: what each rule says, as SQL that finds its offenders.

A rule compares what is kept (a counter, a status, a sequence) with what the other rows
make of it. All rules are asked in one statement, hence of one snapshot: what the engine
writes in one transaction is never seen half. Rows go out as `Discrepancy`; of a tree
whose time is over nothing is said, since it is being deleted part by part.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from cq.models.repeating import database_now
from cq.models.sql import Dialect, database
from cq.models.transitions import REVOKED_BY_HAND

MANY = 1000
OVERDUE_SECONDS = 60

_OPEN = "('P', 'Q', 'R', 'Y', 'W')"
_BAD = "('F', 'I', 'L', 'E')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold of rows, and the SQL of those for which it does not."""

    name: str
    says: str
    table: str
    where: str
    kept: str
    found: str
    key: str = "t.id"
    advice: str = ""
    """What to do where the engine cannot repair it; empty where it can."""
    is_prompt: bool = True
    """Whether it holds after every commit, not only after a while."""


@dataclass(frozen=True, slots=True, order=True)
class Discrepancy:
    """One row that breaks a rule: what it keeps, and what the other rows make of it."""

    rule: str
    id: str
    kept: str
    found: str

    def __str__(self) -> str:
        return f"{BY_NAME[self.rule].says}: {self.id} keeps {self.kept}, found {self.found}."


# What the children of each parent come to; `since` counts those of its present generation.
_COUNTED = f"""
    family AS (
        SELECT c.parent_id AS id, count(CASE WHEN c.status IN {_OPEN} THEN 1 END) AS open,
            count(CASE WHEN c.status IN {_BAD} THEN 1 END) AS failed,
            count(CASE WHEN c.status IN {_BAD} AND c.finished >= p.submitted THEN 1 END) AS since
        FROM cq_task AS c JOIN cq_task AS p ON p.id = c.parent_id
        WHERE c.parent_id IS NOT NULL GROUP BY c.parent_id
    ),
    record AS (
        SELECT n.root, count(*) AS lines, max(n.seq) AS last FROM cq_logline AS n GROUP BY n.root
    )"""

_TASK = "cq_task AS t"
_PARENT = "cq_task AS t JOIN family AS v ON v.id = t.id"
_STREAM = "cq_stream AS s JOIN cq_task AS t ON t.id = s.root"
_CHILDLESS = "NOT EXISTS (SELECT 1 FROM cq_task AS c WHERE c.parent_id = t.id)"
# A row that ended before its parent's present run counts there only if the run adopted it.
_FAILED = """CASE WHEN t.generation = 0 OR t.children_failed > v.failed THEN v.failed
    WHEN t.children_failed < v.since THEN v.since ELSE t.children_failed END"""
_TREE_OPEN = f"""((SELECT count(*) FROM cq_task AS o WHERE o.id = s.root AND o.status IN {_OPEN})
    + (SELECT count(*) FROM cq_task AS o WHERE o.root_id = s.root AND o.status IN {_OPEN}))"""

RULES = (
    Rule(
        name="children_failed",
        says="A parent counts its failed children",
        table=_PARENT,
        where=f"t.children_failed <> {_FAILED}",
        kept="t.children_failed",
        found=_FAILED,
    ),
    Rule(
        name="failed_of_none",
        says="A task without children counts none as failed",
        table=_TASK,
        where=f"t.children_failed > 0 AND {_CHILDLESS}",
        kept="t.children_failed",
        found="0",
    ),
    Rule(
        name="children_open",
        says="A parent counts its open children",
        table=_PARENT,
        where="t.children_open <> v.open",
        kept="t.children_open",
        found="v.open",
    ),
    Rule(
        name="open_of_none",
        says="A task without children waits for none",
        table=_TASK,
        where=f"t.children_open > 0 AND {_CHILDLESS}",
        kept="t.children_open",
        found="0",
    ),
    Rule(
        name="waiting_on",
        says="A parent takes its result from a child of its own",
        table="cq_task AS t JOIN cq_task AS c ON c.id = t.waiting_on",
        where="t.status = 'W' AND (c.parent_id IS NULL OR c.parent_id <> t.id)",
        kept="t.waiting_on",
        found="COALESCE(CAST(c.parent_id AS text), 'none')",
    ),
    Rule(
        name="ended_early",
        says="A Success or Incomplete has no open child",
        table=_PARENT,
        where="t.status IN ('S', 'I') AND v.open > 0",
        kept="t.status",
        found="v.open",
        advice="An end stays as it is. Revoke the children, or wait until they have ended.",
    ),
    Rule(
        name="end",
        says="A parent is Incomplete if a child failed, else a Success",
        table=_TASK,
        where="(t.status = 'S' AND t.children_failed > 0) "
        "OR (t.status = 'I' AND t.children_failed = 0)",
        kept="t.status",
        found="t.children_failed",
        advice="An end stays as it is. Retry the root if its work was not done.",
    ),
    Rule(
        name="held",
        says="A task is held only behind one that has not ended",
        table="cq_task AS t LEFT JOIN cq_task AS b ON b.id = t.previous_id",
        where="t.status = 'P' AND t.previous_id IS NOT NULL "
        f"AND (b.id IS NULL OR b.status NOT IN {_OPEN})",
        kept="t.status",
        found="COALESCE(b.status, 'gone')",
    ),
    Rule(
        name="place",
        says="A child lies in its parent's tree, one level deeper",
        table="cq_task AS t LEFT JOIN cq_task AS p ON p.id = t.parent_id",
        where="""t.parent_id IS NOT NULL AND (p.id IS NULL OR t.depth <> p.depth + 1
            OR t.root_id IS NULL OR t.root_id <> COALESCE(p.root_id, p.id))""",
        kept="t.depth",
        found="COALESCE(CAST(p.depth + 1 AS text), 'no parent')",
        advice="Parents, roots and depths were written by hand. Revoke it and enqueue it anew.",
    ),
    Rule(
        name="tree_open",
        says="A stream counts the open tasks of its tree, and is open while there are any",
        table=_STREAM,
        key="s.root",
        where=f"s.tree_open <> {_TREE_OPEN} OR s.open <> ({_TREE_OPEN} > 0)",
        kept="s.tree_open",
        found=_TREE_OPEN,
    ),
    Rule(
        name="no_stream",
        says="A tree of two or more has a stream",
        table=_TASK,
        where="""t.root_id IS NULL AND EXISTS (SELECT 1 FROM cq_task AS m WHERE m.root_id = t.id)
            AND NOT EXISTS (SELECT 1 FROM cq_stream AS s WHERE s.root = t.id)""",
        kept="'none'",
        found="'a tree'",
    ),
    Rule(
        name="seq",
        says="A stream counts the lines of its tree",
        table=f"{_STREAM} LEFT JOIN record AS r ON r.root = s.root",
        key="s.root",
        where="s.seq < COALESCE(r.last, 0)",
        kept="s.seq",
        found="r.last",
    ),
    Rule(
        name="lines",
        says="The lines of a tree are numbered from 1 without holes",
        table=f"{_STREAM} LEFT JOIN record AS r ON r.root = s.root",
        key="s.root",
        where="s.seq > COALESCE(r.last, 0) OR r.last <> r.lines",
        kept="s.seq",
        found="COALESCE(r.lines, 0)",
        advice="Lines were deleted by hand. Nothing waits for them; pruning removes the rest.",
    ),
    Rule(
        name="orphan",
        says="A running task has a live worker",
        table="cq_task AS t LEFT JOIN cq_worker AS w ON w.id = t.worker_id",
        where="t.status = 'R' AND (w.id IS NULL OR NOT w.alive)",
        kept="t.status",
        found="COALESCE(w.state, 'none')",
        is_prompt=False,
    ),
    Rule(
        name="below_revoked",
        says="Nothing below a task that was revoked is open",
        table="cq_task AS t JOIN cq_task AS p ON p.id = t.parent_id",
        where=f"t.status IN {_OPEN} AND p.status = 'E' AND p.error = '{REVOKED_BY_HAND}'",
        kept="t.status",
        found="p.status",
        is_prompt=False,
    ),
    Rule(
        name="overdue",
        says="A repeating task fires when it is due",
        table="cq_repeatingtask AS e",
        key="e.id",
        where="e.enabled AND e.next_run < %(overdue)s",
        kept="e.next_run",
        found="'due'",
        advice="No scheduler fires it. Start a worker; the runs that were missed become one.",
        is_prompt=False,
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}


def discrepancies(db: Dialect, rules: Iterable[Rule] = RULES) -> list[Discrepancy]:
    """Every row that breaks one of the rules, sorted, at most MANY of each rule."""
    sql = f"WITH {_COUNTED} {' UNION ALL '.join(_select(db, rule) for rule in rules)}"
    params = {}
    if "%(overdue)s" in sql:
        params["overdue"] = db.moment(database_now(database()) - timedelta(seconds=OVERDUE_SECONDS))
    rows = db.run(sql, params)
    return sorted(
        Discrepancy(rule, _id(key), str(kept), str(found)) for rule, key, kept, found in rows
    )


def _select(db: Dialect, rule: Rule) -> str:
    columns = ", ".join(f"CAST({column} AS text)" for column in (rule.key, rule.kept, rule.found))
    lasting = ""
    if _TASK in rule.table:
        lasting = f"AND (t.finished IS NULL OR t.result_expiry > {db.now})"
    return (
        f"SELECT * FROM (SELECT CAST('{rule.name}' AS text) AS rule, {columns} "
        f"FROM {rule.table} WHERE ({rule.where}) {lasting} LIMIT {MANY}) AS one_{rule.name}"
    )


def _id(key: str) -> str:
    return str(UUID(key)) if len(key) >= 32 else key


def set_children_failed(db: Dialect, counts: Mapping[UUID, int]) -> None:
    """Write how many children of locked parents have failed."""
    rows = json.dumps([{"id": id.hex, "n": count} for id, count in counts.items()])
    db.count(
        f"""UPDATE cq_task AS t SET children_failed = v.n
        FROM {db.recordset("v", {"id": "uuid", "n": "int"})} WHERE t.id = v.id""",
        {"rows": rows},
    )


def forget_child(db: Dialect, ids: Iterable[UUID]) -> None:
    """Let these parents take their results from no child."""
    db.count(
        f"UPDATE cq_task SET waiting_on = NULL WHERE id {db.ids('ids')}", {"ids": db.id_list(ids)}
    )


def renew_streams(db: Dialect, roots: Collection[UUID]) -> None:
    """Make the streams of these trees what their tasks and lines say; the last statement."""
    params = {"roots": db.id_list(sorted(roots))}
    # Made where it is not there, and locked: whoever is ending a task of the tree comes after.
    db.count(
        f"""INSERT INTO cq_stream (root, seq, open, tree_open)
        SELECT t.id, 0, false, 0 FROM cq_task AS t WHERE t.id {db.ids("roots")} ORDER BY t.id
        ON CONFLICT (root) DO UPDATE SET seq = cq_stream.seq""",
        params,
    )
    last = "(SELECT max(n.seq) FROM cq_logline AS n WHERE n.root = s.root)"
    db.count(
        f"""UPDATE cq_stream AS s SET tree_open = {_TREE_OPEN}, open = {_TREE_OPEN} > 0,
            seq = CASE WHEN s.seq < {last} THEN {last} ELSE s.seq END
        WHERE s.root {db.ids("roots")}""",
        params,
    )

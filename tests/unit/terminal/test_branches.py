"""How a tree becomes lines: folded, in order, with the counts that were read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cq.progress.publisher import Node, node
from cq.terminal.branches import branches
from cq.terminal.display import plain_branch
from cq.web.snapshot import Rows

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
ROOT = UUID(int=1)


def made(number: int, name: str, status: str = "Q", **facts: Any) -> Node:
    at: dict[str, Any] = {"started": None, "finished": None}
    if status in "RWSF":
        at["started"] = BEGIN
    if status in "SF":
        at["finished"] = BEGIN + timedelta(seconds=number)
    facts = {"parent": None, "previous": None, "children_open": 0, "progress": None} | facts
    return node(UUID(int=number), name=name, status=status, **at, **facts)


def lines(*nodes: Node, watched: UUID = ROOT, **rows: Any) -> list[str]:
    return [plain_branch(branch) for branch in branches(Rows(nodes=[*nodes], **rows), str(watched))]


def test_many_siblings_of_one_name_are_one_line() -> None:
    root = made(1, "import_csv", "W", children_open=12, children=312)
    done = [made(n, "resize", "S", parent=ROOT) for n in range(2, 302)]
    running = [made(n, "resize", "R", parent=ROOT) for n in range(302, 311)]
    failed = [made(n, "resize", "F", parent=ROOT) for n in range(311, 314)]
    assert lines(root, *failed, *done, *running) == [
        "import_csv: waiting 96% 300/312",
        "└ resize ×312: 300 ok, 9 running, 3 failed",
    ]


def test_a_few_siblings_keep_a_line_each() -> None:
    root = made(1, "root", "W", children=2, children_open=1)
    said = {"done": 3, "total": 12, "message": "pages"}
    assert lines(
        root,
        made(2, "load", "R", parent=ROOT, progress=said),
        made(3, "load", "S", parent=ROOT, progress=said),
    ) == ["root: waiting 50% 1/2", "├ load: running 25% 3/12 pages", "└ load: ok in 3.0 s"]


def test_what_lies_below_folded_siblings_is_folded_with_them() -> None:
    parents = [made(n, "shard", "W", parent=ROOT) for n in range(2, 7)]
    children = [made(n + 10, "write", "R", parent=UUID(int=n)) for n in range(2, 7)]
    assert lines(made(1, "root", "W"), *children, *parents) == [
        "root: waiting",
        "└ shard ×5: 5 waiting",
        "  └ write ×5: 5 running",
    ]


def test_a_chain_stands_behind_its_root_and_behind_its_subtask() -> None:
    assert lines(
        made(1, "root", "W"),
        made(2, "a", "S", parent=ROOT),
        made(3, "b", "P", parent=ROOT, previous=UUID(int=2)),
        made(4, "stitch", "P", previous=ROOT),
    ) == ["root: waiting", "├ a: ok in 2.0 s", "└ → b: pending", "→ stitch: pending"]


def test_of_a_subtask_only_what_is_below_it_is_drawn() -> None:
    own = UUID(int=2)
    assert lines(
        made(1, "root", "W"),
        made(2, "a", "W", parent=ROOT),
        made(3, "b", "R", parent=own),
        made(4, "stitch", "P", previous=ROOT),
        watched=own,
    ) == ["a: waiting", "└ b: running"]


def test_of_a_tree_that_is_too_large_the_counts_are_drawn() -> None:
    counts = [
        {"name": "row", "status": "queued", "count": 9_000},
        {"name": "row", "status": "success", "count": 1_000},
        {"name": "sum", "status": "pending", "count": 1},
    ]
    assert lines(made(1, "root", "W"), made(2, "row", parent=ROOT), counts=counts) == [
        "root: waiting",
        "├ row ×10000: 1000 ok, 9000 queued",
        "└ sum: pending",
    ]


def test_hostile_names_and_messages_are_harmless() -> None:
    said = {"done": 1, "total": 0, "message": "\x1b[2Jhello\nworld"}
    [line] = lines(made(1, "ro\x1b]0;title\x07ot\n", "R", progress=said))
    assert line == "root: running 1 hello world"


def test_a_task_that_is_not_there_has_no_lines() -> None:
    assert lines(watched=ROOT) == []

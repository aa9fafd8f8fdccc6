"""What is read of the rows, and with how many statements."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cq.models import Progress, Task
from cq.web import snapshot
from cq.web.snapshot import Rows, Want, read
from tests.integration.watching import Tree


@pytest.fixture(autouse=True)
def on_the_database(database: Any) -> None:
    """Every test here reads rows."""


def all_of(tree: Tree) -> Rows:
    return read([Want(tree.id, tasks=(tree.id,), since=0, tree=True)])[tree.id]


def test_a_parent_knows_how_many_children_it_has():
    tree = Tree()
    children = [tree.child() for _ in range(5)]
    tree.move("W", children_open=5)
    tree.move("S", children[0])
    Task.objects.filter(pk=tree.id).update(children_open=4)
    assert [node["status"] for node in all_of(tree).nodes].count("queued") == 4
    for rows in (all_of(tree), read([Want(tree.id, tasks=(tree.id,))])[tree.id]):
        assert (rows.nodes[0]["children"], rows.nodes[0]["children_open"]) == (5, 4)


def test_a_large_tree_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "MAX_NODES", 3)
    tree = Tree()
    children = [tree.child() for _ in range(5)]
    tree.move("S", children[0])
    tree.move("S", children[4])
    rows = all_of(tree)
    assert rows.truncated
    assert len(rows.nodes) == 4
    assert rows.counts == [
        {"name": "tests.row", "status": "queued", "count": 3},
        {"name": "tests.row", "status": "success", "count": 2},
    ]


def test_progress_is_part_of_the_state():
    tree = Tree()
    child = tree.child()
    for task, done in ((tree.root, 1), (child, 2)):
        Progress.objects.create(task=task.id, root=tree.id, done=done, total=4, message="half")
    found = {node["id"]: node["progress"] for node in all_of(tree).nodes}
    assert found[str(tree.id)] == {"done": 1, "total": 4, "message": "half"}
    assert found[str(child.id)]["done"] == 2


def test_many_trees_cost_no_more_statements_than_one():
    trees = [Tree() for _ in range(20)]
    for tree in trees:
        tree.log("one", tell=False)
    wants = [Want(tree.id, tasks=(tree.id,), since=1) for tree in trees]
    with CaptureQueriesContext(connection) as one:
        read(wants[:1])
    with CaptureQueriesContext(connection) as many:
        found = read(wants)
    assert len(one) == len(many) <= 4
    assert {rows.seq for rows in found.values()} == {1}


def test_lines_are_read_only_where_there_are_new_ones():
    quiet, busy = Tree(), Tree()
    quiet.log("old", tell=False)
    busy.log("old", "new", tell=False)
    wants = [Want(tree.id, tasks=(tree.id,), since=1) for tree in (quiet, busy)]
    with CaptureQueriesContext(connection) as captured:
        found = read(wants)
    assert sum("cq_logline" in query["sql"] for query in captured) == 1
    assert [line["message"] for line in found[busy.id].lines] == ["new"]


def test_a_tree_that_is_not():
    id = uuid4()
    assert read([Want(id, tasks=(id,), since=0, tree=True)])[id].gone


def test_the_end_of_a_task_that_never_had_a_stream():
    tree = Tree()
    assert not all_of(tree).ended
    tree.move("S")
    assert all_of(tree).ended

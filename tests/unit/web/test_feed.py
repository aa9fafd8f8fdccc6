"""The feed: lines without a hole, states that converge, whatever arrives in what order."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import pytest

from cq.progress.publisher import Node
from cq.web.feed import KEPT_CHARS, KEPT_LINES
from cq.web.snapshot import PAGE, Rows
from tests.unit.web.feed_kit import EVERY, ROOT, Someone, Tree, line, lines, node


@pytest.fixture
def tree() -> Tree:
    made = Tree()
    made.recorded = lines(1, 3)
    made.read()
    return made


def test_the_first_read_is_of_everything(tree: Tree):
    assert tree.numbers() == [1, 2, 3]
    assert tree.feed.node(str(ROOT)) == node()
    assert tree.feed.reads_done == 1


def test_lines_that_follow_are_taken_as_they_come(tree: Tree):
    assert tree.tell("log", lines=lines(4, 5))
    assert tree.numbers(3) == [4, 5]


def test_lines_that_came_before_are_dropped(tree: Tree):
    assert not tree.tell("log", lines=lines(2, 3))
    assert tree.tell("log", lines=lines(3, 4))
    assert tree.numbers() == [1, 2, 3, 4]


def test_a_gap_is_read_from_the_rows_at_once(tree: Tree):
    tree.recorded = lines(1, 8)
    tree.tell("log", lines=lines(7, 8))
    assert tree.numbers() == [1, 2, 3]
    assert tree.feed.read_at == tree.now
    want = tree.read()
    assert (want.tasks, want.since) == ((), 3)
    assert tree.numbers() == list(range(1, 9))


def test_nothing_is_taken_before_the_first_read():
    tree = Tree()
    tree.tell("log", lines=lines(1, 2))
    tree.tell("state", nodes=[node(status="success")])
    assert tree.numbers() == []
    assert tree.feed.node(str(ROOT)) is None
    tree.recorded = lines(1, 2)
    tree.read()
    assert tree.numbers() == [1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_doubled_or_late_the_lines_are_whole(seed: int):
    rand = random.Random(seed)
    tree = Tree()
    tree.read()
    for start in range(1, 200, 5):
        tree.recorded = lines(1, start + 4)
        for _ in range(rand.choice([0, 1, 1, 2])):
            first = rand.randint(1, start + 4)
            tree.tell("log", lines=lines(first, rand.randint(first, start + 4)))
        if rand.random() < 0.3:
            want = tree.begin()
            tree.recorded = lines(1, start + 4)
            tree.tell("log", lines=lines(start, start + 4))
            tree.finish(want)
        have = tree.numbers()
        assert have == list(range(1, len(have) + 1))
    tree.read()
    assert tree.numbers() == list(range(1, 201))


def test_of_a_long_record_the_end_is_kept_and_the_rest_left_to_the_rows():
    tree = Tree()
    tree.recorded = lines(1, KEPT_LINES + 500)
    tree.read()
    assert tree.feed.lines_after(0, 10) is None
    assert tree.feed.lines_after(499, 10) is None
    assert [entry["seq"] for entry in tree.feed.lines_after(500, 2) or []] == [501, 502]


def test_of_long_lines_fewer_are_kept(tree: Tree):
    for seq in range(4, 1000):
        tree.tell("log", lines=[{**line(seq), "message": "x" * 8192}])
    kept = tree.feed.lines_after(999 - KEPT_CHARS // 8192, 1000)
    assert kept is not None
    assert len(kept) == KEPT_CHARS // 8192
    assert tree.feed.lines_after(999 - KEPT_CHARS // 8192 - 1, 1000) is None


def test_more_than_a_page_at_once_is_read_page_by_page(tree: Tree):
    tree.recorded = lines(1, 2 * PAGE + 10)
    tree.rows.nodes = [node(status="success")]
    tree.now += EVERY
    for _ in range(3):
        assert tree.feed.read_at <= tree.now
        assert tree.feed.node(str(ROOT)) == node(status="running"), "a status before its lines"
        tree.read()
    assert tree.feed.seq == 2 * PAGE + 10
    assert tree.feed.node(str(ROOT)) == node(status="success")


def test_lines_that_were_pruned_are_passed_over(tree: Tree):
    tree.recorded = [*lines(1, 3), *lines(10, 12)]
    tree.feed.take_rows(tree.begin(), Rows(seq=12, nodes=[node()], lines=lines(10, 12)), EVERY)
    assert tree.numbers(9) == [10, 11, 12]
    assert tree.feed.lines_after(3, 10) is None
    tree.feed.take_rows(tree.begin(), Rows(seq=20, nodes=[node()]), EVERY)


class TestStates:
    def test_a_patch_changes_what_it_names(self, tree: Tree):
        tree.tell("state", nodes=[{"id": str(ROOT), "progress": {"done": 1}}])
        assert tree.feed.node(str(ROOT)) == node(progress={"done": 1})

    def test_what_did_not_change_is_not_told(self, tree: Tree):
        version = tree.feed.version
        tree.tell("state", nodes=[node()])
        assert tree.feed.changes(version) == []

    def test_a_terminal_status_waits_for_the_lines_before_it(self, tree: Tree):
        tree.recorded = lines(1, 4)
        tree.tell("state", nodes=[node(status="success")])
        assert tree.feed.node(str(ROOT)) == node(status="running")
        assert tree.feed.read_at == tree.now
        tree.read()
        assert tree.numbers() == [1, 2, 3, 4]
        assert tree.feed.node(str(ROOT)) == node(status="success")

    def test_a_read_begun_before_it_does_not_release_it(self, tree: Tree):
        tree.now += EVERY
        want = tree.begin()
        tree.tell("state", nodes=[node(status="success")])
        tree.finish(want)
        assert tree.feed.node(str(ROOT)) == node(status="running")
        tree.read()
        assert tree.feed.node(str(ROOT)) == node(status="success")

    def test_nobody_who_sees_lines_means_nobody_waits(self):
        tree = Tree(Someone(log=False))
        tree.read()
        tree.tell("state", nodes=[node(status="success")])
        assert tree.feed.node(str(ROOT)) == node(status="success")

    @pytest.mark.parametrize(
        ("known", "patch"),
        [
            (node(status="retry", attempt=2), {"status": "running", "attempt": 1}),
            (node(status="running", attempt=2), {"status": "queued", "attempt": 2}),
            (node(status="waiting", attempt=1), {"status": "running", "attempt": 1}),
        ],
    )
    def test_a_patch_that_comes_late_changes_nothing(self, known: Node, patch: Node):
        tree = Tree(Someone(log=False))
        tree.rows.nodes = [known]
        tree.read()
        tree.tell("state", nodes=[{"id": str(ROOT), **patch}])
        assert tree.feed.node(str(ROOT)) == known

    def test_rows_may_go_back_because_they_are_the_truth(self, tree: Tree):
        tree.rows.nodes = [node(status="queued", attempt=0)]
        tree.now += EVERY
        tree.read()
        assert tree.feed.node(str(ROOT)) == node(status="queued", attempt=0)

    def test_rows_read_before_a_patch_do_not_undo_it(self):
        tree = Tree(Someone(log=False))
        tree.read()
        tree.now += EVERY
        want = tree.begin()
        tree.tell("state", nodes=[node(status="waiting")])
        tree.finish(want)
        assert tree.feed.node(str(ROOT)) == node(status="waiting")

    def test_a_new_child_appears_when_somebody_sees_the_tree(self):
        tree, child = Tree(Someone(tree=True, log=False)), uuid4()
        tree.read()
        tree.tell("state", nodes=[node(child, status="queued", parent=str(ROOT))])
        assert tree.feed.node(str(child)) == node(child, status="queued", parent=str(ROOT))

    def test_a_child_that_is_only_half_told_is_read(self):
        tree = Tree(Someone(tree=True, log=False))
        tree.read()
        tree.tell("state", nodes=[{"id": str(uuid4()), "status": "running"}])
        assert tree.feed.read_at <= tree.now + 1

    @pytest.mark.parametrize("status", ["pending", "queued", "retry"])
    def test_a_task_that_speaks_has_started_whatever_was_heard_of_it(self, status: str):
        for kind, data in (
            ("state", {"nodes": [{"id": str(ROOT), "progress": {"done": 1}}]}),
            ("log", {"lines": lines(1, 1)}),
        ):
            tree = Tree()
            tree.rows.nodes = [node(status=status)]
            tree.read()
            assert tree.feed.rows_at > tree.now
            tree.tell(kind, **data)
            assert tree.feed.rows_at == tree.now

    def test_the_children_of_a_task_that_waits_are_read_at_once(self):
        tree = Tree(Someone(tree=True))
        tree.read()
        tree.tell("state", nodes=[{"id": str(ROOT), "status": "waiting"}])
        assert tree.feed.rows_at == tree.now

    def test_a_child_that_came_without_its_attempt_can_still_change(self):
        tree, child = Tree(Someone(tree=True, log=False)), str(uuid4())
        tree.read()
        for status in ("queued", "running", "success"):
            patch = {"id": child, "name": "t", "parent": str(ROOT), "status": status}
            tree.tell("state", nodes=[patch])
            known = tree.feed.node(child)
            assert known is not None
            assert known["status"] == status

    def test_nobody_sees_the_tree_and_children_are_not_kept(self, tree: Tree):
        tree.tell("state", nodes=[node(uuid4())])
        assert tree.feed.nodes() == [node()]

    def test_changes_since_a_version(self):
        tree, child = Tree(Someone(tree=True, log=False)), uuid4()
        tree.rows.nodes = [node(), node(child)]
        tree.read()
        version = tree.feed.version
        tree.tell("state", nodes=[{"id": str(child), "status": "waiting"}])
        tree.tell("state", nodes=[{"id": str(ROOT), "status": "waiting"}])
        assert [entry["id"] for entry in tree.feed.changes(version)] == [str(child), str(ROOT)]
        assert len(tree.feed.changes(0)) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"lines": None},
        {"lines": "x"},
        {"lines": [None, 3, "x", {}]},
        {"lines": [{"seq": "4"}]},
        {"lines": [{**line(4), "message": None}]},
        {"lines": [{**line(4), "level": "high"}]},
        {"nodes": [None, {}, {"id": 3}]},
        {"nodes": [{"id": "x", "attempt": "many"}]},
        {"nodes": [{"id": str(ROOT), "status": ["success"]}]},
        {"nodes": [{"id": str(ROOT), "parent": {}, "status": "success"}, node(parent=[1])]},
        {"nodes": 3},
    ],
)
def test_garbage_changes_nothing(tree: Tree, data: dict[str, Any]):
    for kind in ("log", "state", "end", "look", "nonsense"):
        tree.tell(kind, **data)
    assert tree.numbers() == [1, 2, 3]
    assert tree.feed.nodes() == [node()]


def test_lines_not_yet_recorded_are_shown_and_not_kept():
    reader = Someone()
    tree = Tree(reader)
    tree.recorded = lines(1, 2)
    tree.read()
    assert tree.tell("log", lines=[line(None), line(3)])
    assert [entry["seq"] for entry in reader.shown] == [None]
    assert tree.numbers() == [1, 2, 3]


def test_what_watchers_share_is_made_once_for_each_version(tree: Tree):
    seen = tree.feed.version
    tree.tell("state", nodes=[node(progress={"done": 1})])
    first = tree.feed.shared(seen)
    assert first is tree.feed.shared(seen)
    assert [one["progress"] for one in first.value] == [{"done": 1}]
    tree.tell("state", nodes=[node(progress={"done": 2})])
    assert [one["progress"] for one in tree.feed.shared(seen).value] == [{"done": 2}]
    assert len(tree.feed.shared().value) == 1

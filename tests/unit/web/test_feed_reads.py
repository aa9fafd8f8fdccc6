"""When the feed asks for the rows: soon after somebody came, on one beat, when events imply it."""

from __future__ import annotations

import pytest

from cq.web.feed import LOOKS, NEVER, Feed
from tests.unit.web.feed_kit import EVERY, ROOT, Someone, Tree, lines, node


@pytest.fixture
def tree() -> Tree:
    made = Tree()
    made.recorded = lines(1, 3)
    made.read()
    return made


class TestReads:
    def test_rows_are_read_again_soon_after_a_watcher_came(self):
        tree = Tree()
        times = []
        for _ in range(6):
            tree.now = max(tree.now, tree.feed.read_at)
            times.append(round(tree.now - 100, 3))
            tree.read()
        assert times == [0, *LOOKS, EVERY]

    def test_all_feeds_are_read_on_one_beat(self):
        one, two = Tree(), Tree()
        two.now += 2.5
        for tree in (one, two):
            tree.now += LOOKS[-1]
            tree.read()
        assert one.feed.rows_at == two.feed.rows_at == 110.0

    def test_the_barrier_holds_the_first_read_back(self):
        tree = Tree()
        late = Feed(ROOT, lambda: tree.now)
        late.add(Someone(), 101.0)
        assert late.read_at == 101.0
        late.read_now()
        assert late.read_at == tree.now

    def test_a_newcomer_waits_for_a_read_that_began_after_it_came(self, tree: Tree):
        tree.now += EVERY
        want = tree.begin()
        newcomer = Someone()
        tree.feed.add(newcomer, 0.0)
        tree.finish(want)
        assert tree.feed.reads_done < newcomer.first_read
        assert tree.feed.read_at <= tree.now
        tree.read()
        assert tree.feed.reads_done >= newcomer.first_read

    def test_a_look_asked_for_during_a_read_is_not_forgotten(self, tree: Tree):
        tree.now += EVERY
        want = tree.begin()
        tree.tell("look")
        tree.finish(want)
        assert tree.feed.read_at <= tree.now

    def test_lines_alone_do_not_put_off_the_rows(self, tree: Tree):
        for _ in range(100):
            tree.now += 0.25
            if tree.feed.rows_at <= tree.now:
                break
            tree.tell("state", nodes=[node(status="success")])
            tree.read()
        assert tree.now <= 100 + LOOKS[-1] + EVERY + 0.25

    def test_the_end_is_the_rows_to_say(self, tree: Tree):
        tree.tell("end")
        assert not tree.feed.has_ended(str(ROOT))
        tree.rows.ended = True
        tree.rows.nodes = [node(status="success")]
        tree.read()
        assert tree.feed.has_ended(str(ROOT))

    def test_an_end_that_waited_for_lines_is_news_when_they_have_come(self, tree: Tree):
        tree.rows.ended, tree.rows.nodes = True, [node(status="success")]
        tree.feed.read_now()
        tree.read()
        tree.tell("state", nodes=[node(status="success")])
        assert not tree.feed.has_ended(str(ROOT))
        seen = tree.feed.version
        tree.read()
        assert tree.feed.has_ended(str(ROOT))
        assert tree.feed.version > seen

    def test_when_the_last_reader_of_lines_leaves_they_are_forgotten(self):
        reader, other = Someone(), Someone(log=False)
        tree = Tree(reader, other)
        tree.recorded = lines(1, 3)
        tree.read()
        tree.feed.remove(reader)
        assert tree.begin().since is None
        tree.feed.add(Someone(), 0.0)
        assert tree.begin().since == 0

    def test_nothing_is_due_between_begin_and_finish(self, tree: Tree):
        tree.now += EVERY
        tree.begin()
        assert tree.feed.read_at == NEVER

    def test_a_status_that_waited_for_lines_is_read_when_their_last_reader_leaves(self):
        reader = Someone()
        tree = Tree(reader, Someone(log=False))
        tree.read()
        tree.tell("state", nodes=[node(status="success")])
        tree.feed.remove(reader)
        assert tree.feed.rows_at == tree.now

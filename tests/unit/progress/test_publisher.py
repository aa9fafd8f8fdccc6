"""Who watches what, and what is told to whom; the layer is a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from cq.definition.status import Status
from cq.progress import publisher
from cq.progress.publisher import ANNOUNCEMENT_SECONDS, Audience
from cq.transport.groups import WATCHERS_GROUP, audience_messages, root_group

Sent = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What went to the browser layer."""
    messages: Sent = []
    monkeypatch.setattr(publisher, "crosses_processes", lambda alias: True)
    monkeypatch.setattr(
        publisher.dispatcher, "send_group", lambda group, message: messages.append((group, message))
    )
    return messages


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What was told within this process."""
    messages: list[dict[str, Any]] = []
    publisher.attach(messages.append)
    yield messages
    publisher.detach(messages.append)


def announce(root: str) -> None:
    for message in audience_messages([root]):
        publisher.audience(message)


def line(seq: int | None, message: str = "x") -> publisher.Line:
    return publisher.line(
        seq=seq, task=uuid4(), name="t", attempt=1, level=20, message=message, at=datetime.now(UTC)
    )


def test_nobody_watches_and_nothing_is_told(sent: Sent):
    root = uuid4().hex
    publisher.lines(root, [line(1)])
    publisher.states(root, [publisher.node(uuid4(), status="R")])
    publisher.end(root)
    assert not publisher.watched(root)
    assert sent == []


def test_an_announced_root_is_told_through_the_layer(sent: Sent):
    root = uuid4().hex
    announce(root)
    assert publisher.watched(root)
    publisher.lines(root, [line(1), line(2)])
    publisher.end(root)
    assert [(group, message["kind"]) for group, message in sent] == [
        (root_group(root), "log"),
        (root_group(root), "end"),
    ]
    assert [entry["seq"] for entry in sent[0][1]["lines"]] == [1, 2]


def test_a_marked_root_is_told_within_the_process_alone(sent: Sent, heard: list[dict[str, Any]]):
    root = uuid4().hex
    publisher.mark(root)
    publisher.lines(root, [line(1)])
    publisher.unmark(root)
    publisher.lines(root, [line(2)])
    assert [message["kind"] for message in heard] == ["log"]
    assert sent == []


def test_a_nudge_reaches_everybody_though_nobody_is_known(sent: Sent, heard: list[dict[str, Any]]):
    root = uuid4().hex
    publisher.nudge(root)
    assert [message["kind"] for message in heard] == ["look"]
    assert [group for group, _ in sent] == [root_group(root)]


def test_a_worker_that_starts_asks_the_watchers(sent: Sent):
    publisher.ask()
    assert [group for group, _ in sent] == [WATCHERS_GROUP]
    assert publisher.is_question(sent[0][1])


def test_many_lines_travel_in_portions_by_number_and_by_size(sent: Sent):
    root = uuid4().hex
    announce(root)
    publisher.lines(root, [line(seq) for seq in range(1, 402)])
    publisher.lines(root, [line(seq, "x" * 8000) for seq in range(1, 20)])
    sizes = [len(message["lines"]) for _, message in sent]
    assert sizes == [200, 200, 1, 8, 8, 3]


def test_a_node_is_spelled_for_the_wire():
    id, parent = uuid4(), uuid4()
    at = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)
    assert publisher.node(id, status=Status.RETRY, parent=parent, due=at, attempt=2) == {
        "id": str(id),
        "status": "retry",
        "parent": str(parent),
        "due": "2026-03-29T02:30:00Z",
        "attempt": 2,
    }


@pytest.mark.parametrize(
    "garbage", [None, 3, {}, {"kind": "audience"}, {"kind": "audience", "roots": 1}]
)
def test_garbage_announces_nothing(garbage: object):
    publisher.audience(garbage)


class TestAudience:
    @pytest.fixture
    def now(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def audience(self, now: list[float]) -> Audience:
        clock: Callable[[], float] = lambda: now[0]  # noqa: E731
        return Audience(clock)

    def test_an_announcement_lives_75_seconds(self, audience: Audience, now: list[float]):
        audience.announce(["a"])
        now[0] += ANNOUNCEMENT_SECONDS - 1
        assert audience.is_elsewhere("a")
        now[0] += 1
        assert not audience.is_elsewhere("a")
        assert "a" not in audience.watched

    def test_it_is_good_for_75_seconds_more_when_repeated(
        self, audience: Audience, now: list[float]
    ):
        audience.announce(["a"])
        now[0] += 60
        audience.announce(["a"])
        now[0] += 60
        assert audience.is_elsewhere("a")

    def test_stale_announcements_go_with_the_next_one(self, audience: Audience, now: list[float]):
        audience.announce([f"{number}" for number in range(1000)])
        now[0] += ANNOUNCEMENT_SECONDS
        audience.announce(["a"])
        assert audience.watched == {"a"}

    def test_two_watchers_here_are_counted(self, audience: Audience):
        audience.mark("a")
        audience.mark("a")
        audience.unmark("a")
        assert "a" in audience.watched
        audience.unmark("a")
        assert "a" not in audience.watched

    def test_leaving_here_does_not_end_an_announcement(self, audience: Audience):
        audience.announce(["a"])
        audience.mark("a")
        audience.unmark("a")
        assert "a" in audience.watched

    def test_a_stale_announcement_does_not_end_a_watch_here(
        self, audience: Audience, now: list[float]
    ):
        audience.mark("a")
        audience.announce(["a"])
        now[0] += ANNOUNCEMENT_SECONDS
        assert not audience.is_elsewhere("a")
        assert "a" in audience.watched

    def test_an_unmark_too_many_is_harmless(self, audience: Audience):
        audience.unmark("a")
        audience.mark("a")
        assert "a" in audience.watched

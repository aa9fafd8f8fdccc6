"""What each arrow does beside moving its row: T13 to T19, of people, predecessors and time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from cq.definition.outcome import Succeeded
from cq.errors import IllegalTransition
from cq.models import LogLine, Stream, Task
from cq.workflow.rescue import end_overdue, park_unroutable
from cq.workflow.retention import prune
from cq.workflow.retry import retry
from cq.workflow.revoke import revoke
from tests.conformance.driving import (
    E,
    F,
    Hand,
    I,
    P,
    Q,
    S,
    W,
    by_name,
    errorback_calls,
    failure,
    fresh,
    line,
    rung,
    status,
)
from tests.sampleapp.tasks import add, echo, noop, note_error

SECOND = timedelta(seconds=1)


def test_t13_a_revoked_child_counts_at_its_parent(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a").chain(echo, "b")][0])
    rows = by_name(root)
    link = rows["b"].chain(echo, "c", force_chain=True)
    assert revoke(rows["a"]) is True
    assert [status(row) for row in (rows["a"], rows["b"], link, root)] == [E, E, E, I]
    assert {fresh(row).error for row in (rows["a"], rows["b"], link)} == {"Revoked."}
    assert fresh(root).children_failed == 3
    assert revoke(rows["a"]) is False


def test_t14_a_revoke_voids_what_runs(hand: Hand) -> None:
    root = noop.delay()
    root.errorback(note_error)
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a"), cqt.subtask(echo, "b")][0])
    rows = by_name(root)
    claimed = hand.take(rows["a"])
    root.revoke()
    assert (root.status, root.error) == (E, "Revoked.")
    assert [status(row) for row in (root, rows["a"], rows["b"])] == [E, E, E]
    assert hand.end(claimed, Succeeded(result=1), lines=[line(claimed)]) is None
    row = fresh(rows["a"])
    assert (row.status, row.result, row.claim_token, row.worker_id) == (E, None, None, None)
    assert (LogLine.objects.count(), errorback_calls(root)) == (0, 0)
    assert Stream.objects.get(root=root.id).open is False


def test_t15_links_behind_a_failure_are_called_off_in_turn(hand: Hand) -> None:
    task = noop.delay()
    first = task.chain(echo, 1)
    second = first.chain(echo, 2)
    forced = second.chain(echo, 3, force_chain=True)
    forced_too = forced.chain(echo, 4)
    hand.fail(task)
    assert [status(row) for row in (first, second, forced, forced_too)] == [E, E, Q, P]
    assert fresh(second).error == "The predecessor failed."
    assert fresh(first).finished is not None
    hand.run(forced)
    assert hand.run(forced_too) is S


def test_t16_what_expired_or_nobody_runs_fails_with_its_reason(hand: Hand) -> None:
    root = noop.delay()
    late = root.subtask(echo, "late")
    late.errorback(note_error)
    hand.run(root)
    strange = Task.objects.create(
        func_name="nobody.knows", run_at=timezone.now() - timedelta(days=2)
    )
    hand.held.clear()
    Task.objects.filter(pk=late.pk).update(
        expires_at=timezone.now() - SECOND, status=Q, claim_token=None, worker=None
    )
    assert park_unroutable() == 1
    assert end_overdue() == 2
    assert [status(late), status(strange), status(root)] == [F, F, I]
    assert "Expired" in fresh(late).error
    assert "86400 seconds" in fresh(strange).error
    assert fresh(strange).parked is False
    assert errorback_calls(late) == 1


def test_t17_a_retried_root_starts_afresh_and_keeps_its_history(
    hand: Hand, bells: list[str]
) -> None:
    root = noop.using(expires=3600).delay()
    link = root.chain(add, second=1)
    behind = link.chain(noop)
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "old")][0])
    hand.fail(by_name(root)["old"], "broken")
    assert [status(row) for row in (root, link, behind)] == [I, E, E]
    before = fresh(root)
    bells.clear()
    root.retry()
    assert rung(bells, root)
    row = fresh(root)
    assert (row.status, row.generation, row.attempts, row.children_failed) == (Q, 1, 0, 0)
    assert (row.error, row.finished, row.result_expiry, row.expires_at) == (None,) * 4
    assert row.submitted > before.submitted
    assert [status(link), status(behind)] == [P, P]
    assert Stream.objects.get(root=root.id).tree_open == 3
    hand.run(root, lambda cqt: cqt.subtask(echo, "new"))
    hand.run(by_name(root)["new"], lambda cqt: 41)
    assert [status(root), fresh(link).previous_result] == [S, 41]
    assert status(by_name(root)["old"]) is F
    assert hand.run_all() == 2


def test_t17_is_refused_with_the_reason(hand: Hand) -> None:
    root = noop.delay()
    forced = root.chain(echo, 1, force_chain=True)
    child = root.subtask(echo, "a")
    hand.fail(child)
    with pytest.raises(IllegalTransition, match=r"Running|Queued"):
        root.retry()
    with pytest.raises(IllegalTransition, match=f"Retry its root {root.id}"):
        child.retry()
    hand.run(root)
    with pytest.raises(IllegalTransition, match="1 of its descendants"):
        root.retry()
    hand.run(forced)
    root.retry()
    keyed = noop.using(unique_key="k")
    failed = keyed.delay()
    hand.fail(failed)
    newer = keyed.delay()
    with pytest.raises(IllegalTransition, match=str(newer.id)):
        failed.retry()


def test_t18_an_expired_tree_goes_with_its_lines(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.log("one"), cqt.subtask(echo, "a")][0])
    hand.run_all()
    assert LogLine.objects.count() == 1
    Task.objects.update(result_expiry=timezone.now() - SECOND)
    assert prune() == 3
    assert not Stream.objects.exists()


def test_t19_only_what_failed_runs_again(hand: Hand, bells: list[str]) -> None:
    root = noop.delay()
    after = root.chain(noop)

    def body(cqt):
        cqt.subtask(echo, "good")
        cqt.subtask(echo, "bad").chain(echo, "link")
        return cqt.subtask(echo, "middle")

    hand.run(root, body)
    hand.run(by_name(root)["middle"], lambda cqt: cqt.subtask(echo, "deep"))
    rows = by_name(root)
    hand.run(rows["good"])
    hand.fail(rows["bad"], "broken")
    rows["deep"].revoke()
    assert [status(row) for row in (root, rows["middle"], rows["link"], after)] == [I, I, E, E]
    bells.clear()
    retry(root, failed_only=True)
    assert root.status == W
    assert rung(bells, rows["bad"], rows["deep"])
    now = {name: row.status for name, row in by_name(root).items()}
    assert now == {"good": S, "bad": Q, "link": P, "middle": W, "deep": Q}
    assert status(after) is P
    row = fresh(root)
    assert (row.children_open, row.children_failed, row.generation) == (3, 0, 1)
    assert (fresh(rows["bad"]).attempts, fresh(rows["bad"]).generation) == (0, 1)
    assert Stream.objects.get(root=root.id).tree_open == 6
    hand.run(rows["deep"], lambda cqt: "deep value")
    hand.run(rows["bad"])
    hand.run(rows["link"])
    assert (status(root), fresh(root).result, status(after)) == (S, "deep value", Q)
    hand.run(after)


def test_t19_passes_over_children_of_an_earlier_generation(hand: Hand) -> None:
    root = noop.delay()
    for name in ("old", "new"):
        hand.run(root, lambda cqt, name=name: [None, cqt.subtask(echo, name)][0])
        hand.fail(by_name(root)[name])
        if name == "old":
            root.retry()
    retry(root, failed_only=True)
    assert {name: row.status for name, row in by_name(root).items()} == {"old": F, "new": Q}
    assert fresh(root).children_open == 1
    hand.run_all()
    assert status(root) is S


@pytest.mark.contradictory  # it deletes a child by hand
def test_t19_is_refused_with_the_reason(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [None, cqt.subtask(echo, "a"), cqt.subtask(echo, "b")][0])
    rows = by_name(root)
    hand.fail(rows["a"])
    with pytest.raises(IllegalTransition, match="Waiting"):
        retry(root, failed_only=True)
    hand.run(rows["b"])
    with pytest.raises(IllegalTransition, match="Failure"):
        retry(rows["a"], failed_only=True)
    Task.objects.filter(pk=rows["a"].pk).delete()
    with pytest.raises(IllegalTransition, match="Retry the whole task"):
        retry(root, failed_only=True)
    Stream.objects.update(tree_open=0)
    other = noop.delay()
    hand.end(other, failure())
    with pytest.raises(IllegalTransition, match="Incomplete"):
        retry(other, failed_only=True)

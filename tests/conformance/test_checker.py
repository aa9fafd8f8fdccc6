"""The checker finds each contradiction that is written by hand, mends it, and else finds none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from cq.definition.outcome import Succeeded
from cq.models import LogLine, RepeatingTask, Stream, Task, Worker
from cq.models.discrepancies import BY_NAME, RULES
from cq.workflow import checker
from cq.workflow.checker import Report, check, repair
from cq.workflow.completion import complete
from tests.conformance.connections import closing, elsewhere, somebody_waits, together
from tests.conformance.driving import (
    E,
    Hand,
    I,
    P,
    Q,
    R,
    S,
    failure,
    fresh,
    on_postgres,
    status,
)
from tests.conformance.forest import Forest
from tests.sampleapp.tasks import echo, noop
from tests.waiting import wait_until

Break = Callable[[Hand], Any]


def by_hand(**values: Any) -> Callable[[Task], None]:
    """Write columns as somebody with a database console does."""

    def write(task: Task) -> None:
        vars_of = ", ".join(f"{name} = %s" for name in values)
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE cq_task SET {vars_of} WHERE id = %s",
                [*values.values(), task.id.hex if connection.vendor == "sqlite" else task.id],
            )

    return write


def family(hand: Hand, children: int = 2) -> tuple[Task, list[Task]]:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.subtask(echo, n) for n in range(children)][-1])
    return root, list(Task.objects.filter(parent=root).order_by("args"))


def ended(hand: Hand, *, badly: bool = False) -> Task:
    root, children = family(hand, 1)
    hand.end(children[0], failure() if badly else Succeeded(result="from below"))
    return root


# --- each rule ----------------------------------------------------------------------------------


def count_too_many(hand: Hand) -> None:
    root, _ = family(hand)
    by_hand(children_open=5)(root)


def count_too_few(hand: Hand) -> None:
    root, _ = family(hand)
    by_hand(children_open=1)(root)


def wait_for_nothing(hand: Hand) -> None:
    root = ended(hand)
    by_hand(status="W", children_open=1, finished=None, result=None)(root)


def wait_without_children(hand: Hand) -> None:
    by_hand(children_open=1)(noop.delay())


def fail_without_children(hand: Hand) -> None:
    by_hand(children_failed=1)(noop.delay())


def miscount_failures(hand: Hand) -> None:
    root, children = family(hand)
    hand.fail(children[0])
    by_hand(children_failed=2)(root)


def forget_a_failure(hand: Hand) -> None:
    root, children = family(hand)
    hand.fail(children[0])
    by_hand(children_failed=0)(root)


def await_a_stranger(hand: Hand) -> None:
    root, _ = family(hand)
    stranger = noop.delay().id
    by_hand(waiting_on=stranger.hex if connection.vendor == "sqlite" else stranger)(root)


def hold_behind_an_end(hand: Hand) -> None:
    first = noop.delay()
    link = first.chain(echo)
    hand.run(first, lambda cqt: "handed on")
    by_hand(status="P", previous_result=None)(link)


def hold_behind_a_failure(hand: Hand) -> None:
    first = noop.delay()
    link = first.chain(echo)
    hand.fail(first)
    by_hand(status="P", finished=None, error=None)(link)


def hold_behind_nothing(hand: Hand) -> None:
    _, children = family(hand)
    children[0].chain(echo)
    Task.objects.filter(pk=children[0].pk).delete()


def miscount_a_tree(hand: Hand) -> None:
    family(hand)
    Stream.objects.update(tree_open=7)


def close_a_stream(hand: Hand) -> None:
    family(hand)
    Stream.objects.update(open=False)


def lose_a_stream(hand: Hand) -> None:
    family(hand)
    Stream.objects.all().delete()


def number_behind(hand: Hand) -> None:
    root = noop.delay()
    hand.run(root, lambda cqt: [cqt.log("one"), cqt.log("two")][:0])
    Stream.objects.update(seq=1)


def lose_a_worker(hand: Hand) -> None:
    hand.take(noop.delay())
    Worker.objects.all().delete()


def lose_a_dead_worker(hand: Hand) -> None:
    hand.take(noop.delay())
    hand.die()


def revoke_half(hand: Hand) -> None:
    root, _ = family(hand)
    root.revoke()
    child = Task.objects.filter(parent=root).first()
    assert child is not None
    by_hand(status="Q", finished=None, error=None)(child)
    by_hand(children_open=1, children_failed=1)(root)
    Stream.objects.update(tree_open=1, open=True)


MENDED: dict[str, tuple[Break, ...]] = {
    "children_open": (count_too_many, count_too_few, wait_for_nothing),
    "open_of_none": (wait_without_children,),
    "children_failed": (miscount_failures, forget_a_failure),
    "failed_of_none": (fail_without_children,),
    "waiting_on": (await_a_stranger,),
    "held": (hold_behind_an_end, hold_behind_a_failure, hold_behind_nothing),
    "tree_open": (miscount_a_tree, close_a_stream),
    "no_stream": (lose_a_stream,),
    "seq": (number_behind,),
    "orphan": (lose_a_worker, lose_a_dead_worker),
    "below_revoked": (revoke_half,),
}
CASES = [(rule, damage) for rule, damages in MENDED.items() for damage in damages]


@pytest.mark.parametrize(("rule", "damage"), CASES, ids=[damage.__name__ for _, damage in CASES])
def test_damage_is_found_and_mended(hand: Hand, rule: str, damage: Break) -> None:
    damage(hand)
    report = check(instant=0)
    assert rule in report.counts
    assert all(BY_NAME[one.rule].says in str(one) for one in report.found)
    assert repair(report, instant=0) == Report()
    if rule == "orphan":
        Task.objects.update(run_at="2020-01-01T00:00:00Z")
        hand.held.clear()
        Hand().run_all()
    hand.run_all()
    assert check(instant=0) == Report()
    assert not Task.objects.active().exists()


def contradict_an_end(hand: Hand) -> None:
    root = ended(hand, badly=True)
    by_hand(status="S", error=None)(root)


def end_early(hand: Hand) -> None:
    root, _ = family(hand)
    by_hand(status="S", finished="2020-01-01T00:00:00Z", result_expiry="2999-01-01T00:00:00Z")(root)
    Stream.objects.update(tree_open=2)


def misplace(hand: Hand) -> None:
    _, children = family(hand)
    by_hand(depth=5)(children[0])


def lose_lines(hand: Hand) -> None:
    number_behind(hand)
    Stream.objects.update(seq=2)
    LogLine.objects.filter(seq=1).delete()


def miss_a_tick(hand: Hand) -> None:
    entry = RepeatingTask.objects.create(name="hourly", func_name=noop.name, crontab="0 * * * *")
    RepeatingTask.objects.filter(pk=entry.pk).update(next_run="2020-01-01T00:00:00Z")


TOLD = {
    "end": contradict_an_end,
    "ended_early": end_early,
    "place": misplace,
    "lines": lose_lines,
    "overdue": miss_a_tick,
}


@pytest.mark.contradictory
@pytest.mark.parametrize(("rule", "damage"), TOLD.items(), ids=list(TOLD))
@pytest.mark.usefixtures("database")
def test_what_no_repair_can_mend_stays_in_the_report(rule: str, damage: Break) -> None:
    damage(Hand())
    report = check(instant=0)
    assert report.counts == {rule: 1}
    assert BY_NAME[rule].advice
    assert repair(report, instant=0) == report


def test_each_rule_is_broken_here() -> None:
    assert {rule.name for rule in RULES} == {*MENDED, *TOLD}


# --- what a repair carries on -------------------------------------------------------------------


def test_a_parent_that_waited_for_nothing_ends_with_the_result_of_its_child(hand: Hand) -> None:
    link = ended(hand).chain(noop)
    root = fresh(link.previous_id)
    wait_for = {"status": "W", "children_open": 1, "finished": None, "result": None}
    by_hand(**wait_for)(root)
    by_hand(status="P")(link)
    Stream.objects.update(tree_open=2, open=True)
    assert check(instant=0).counts == {"children_open": 1}
    assert not repair(check(instant=0), instant=0)
    assert (status(root), fresh(root).result, status(link)) == (S, "from below", Q)
    hand.run_all()


def test_a_link_that_is_let_go_gets_the_result(hand: Hand) -> None:
    hold_behind_an_end(hand)
    repair(check(instant=0), instant=0)
    link = Task.objects.get(previous__isnull=False)
    assert (link.status, link.previous_result) == (Q, "handed on")
    hand.run_all()


def test_a_failure_that_was_forgotten_decides_the_end(hand: Hand) -> None:
    forget_a_failure(hand)
    repair(check(instant=0), instant=0)
    hand.run_all()
    assert status(Task.objects.get(parent=None)) is I


def test_what_is_held_behind_nothing_ends_as_behind_a_failure(hand: Hand) -> None:
    hold_behind_nothing(hand)
    repair(check(instant=0), instant=0)
    assert Task.objects.get(previous__isnull=False).status == E
    hand.run_all()


@on_postgres
@pytest.mark.parametrize("ends_first", [True, False], ids=["ends first", "is mended first"])
def test_a_child_that_ends_beside_a_repair_counts_once(hand: Hand, ends_first: bool) -> None:
    root, children = family(hand)
    by_hand(children_open=5)(root)
    hand.claim()
    item = hand.ending(children[0], Succeeded())
    works = [lambda: complete([item]), lambda: checker._count_anew([root.id])]
    first, second = works if ends_first else reversed(works)
    with ThreadPoolExecutor(1) as pool:
        with elsewhere(first):
            later = pool.submit(closing, second)
            wait_until(somebody_waits)
        later.result(10)
    assert fresh(root).children_open == 1
    assert check(instant=0) == Report()
    hand.run_all()


# --- sound databases ----------------------------------------------------------------------------


def test_nothing_is_found_beside_lively_hands(hand: Hand) -> None:
    forests = [Forest(seed) for seed in (41, 42)]
    reports: list[Report] = []

    def look() -> None:
        for _ in range(20):
            reports.append(check(checker.PROMPT, instant=0))

    answers = together([*[lambda one=one: one.hurry(40) for one in forests], look])
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert reports == [Report()] * 20
    for forest in forests:
        forest.settle_own()
    forests[0].settle()
    assert check(instant=0) == Report()


def test_what_mends_itself_within_an_instant_is_not_reported(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cq.workflow.rescue import rescue_tasks

    lose_a_dead_worker(hand)
    monkeypatch.setattr(checker._pause, "wait", lambda seconds: rescue_tasks())
    assert check() == Report()
    assert status(Task.objects.get()) is Q


@pytest.mark.usefixtures("database")
def test_a_tree_that_is_being_deleted_is_no_contradiction() -> None:
    root = ended(Hand())
    Task.objects.update(result_expiry="2020-01-01T00:00:00Z")
    Task.objects.filter(parent=root).delete()
    by_hand(children_failed=1)(root)
    assert check(instant=0) == Report()


# --- the command --------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = 0
    try:
        call_command("cq_check", "--instant", "0", *options)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().out


def test_the_command_prints_mends_and_ends_with_a_code(
    hand: Hand, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys) == (0, "All rows agree.\n")
    count_too_many(hand)
    root = Task.objects.get(parent=None)
    code, text = run(capsys)
    assert code == 1
    assert "A parent counts its open children: 1 not so." in text
    assert f"{root.id} keeps 5, found 2" in text
    code, text = run(capsys, "--repair")
    assert (code, text.splitlines()[-1]) == (0, "Repaired.")
    assert run(capsys)[0] == 0


@pytest.mark.contradictory
@pytest.mark.usefixtures("database")
def test_the_command_says_what_it_cannot_mend(capsys: pytest.CaptureFixture[str]) -> None:
    contradict_an_end(Hand())
    code, text = run(capsys, "--repair")
    assert code == 1
    assert "Left:" in text
    assert "Retry the root" in text


def test_a_held_task_without_predecessor_is_in_order(hand: Hand) -> None:
    task = noop.delay_args(submit=False)
    assert (status(task), check(instant=0)) == (P, Report())
    hand.take(noop.delay())
    assert R in {Task.objects.get(pk=id).status for id in hand.held}

"""cq_watch on real rows: what it prints, how it ends, and what it leaves alone."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import timedelta
from itertools import takewhile
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from cq.models import Stream, Task
from cq.terminal.display import PlainDisplay
from cq.terminal.following import TAIL, Follower, WatchCode
from cq.terminal.watching import watch
from cq.testing import drain
from tests.integration.watching import Tree
from tests.sampleapp.tasks import echo, fail, fan_out, flaky, noop, parent_of
from tests.workers import MANAGE, ROOT, WorkerFactory

# Most trees here are rows written by hand, of which some say what no engine would.
pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.contradictory]


def run(*arguments: str, **options: Any) -> tuple[str, int]:
    """Run a command; return what it printed and the code it would exit with."""
    out = io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=out, **options)
    except SystemExit as exit:
        return out.getvalue(), int(exit.code or 0)
    return out.getvalue(), 0


def refusal(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.fixture
def tree() -> Tree:
    """A root that waits for one child, with nobody listening."""
    tree = Tree(status="R", claim_token=UUID(int=7), started=timezone.now(), attempts=1)
    tree.tells = False
    return tree


# --- which task is meant --------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [str, lambda id: id.hex, lambda id: str(id).upper()[:30]])
def test_an_id_may_be_written_in_any_form_and_cut_short(spelled: Any) -> None:
    task = echo.delay("x")
    drain()
    said, code = run("cq_watch", spelled(task.id))
    assert code == 0
    assert f"{task.id} has succeeded" in said


def test_a_prefix_that_a_root_shares_with_its_subtasks_means_the_root() -> None:
    root = fan_out.delay(3)
    drain()
    said, code = run("cq_watch", str(root.id)[:6])
    assert code == 0
    assert str(root.id) in said


def test_a_prefix_of_several_roots_names_them() -> None:
    first, second = noop.delay(), echo.delay()
    pairs = zip(first.id.hex, second.id.hex, strict=True)
    shared = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    refused = refusal("cq_watch", shared)
    assert refused.returncode == WatchCode.NOT_FOUND
    assert str(first.id) in str(refused)
    assert str(second.id) in str(refused)
    assert "Type more signs" in str(refused)


@pytest.mark.parametrize("text", ["", "xyz", "not-an-id", "0" * 33, "\x1b[2J'; DROP TABLE", "g0"])
def test_what_is_no_id_gets_one_sentence(text: str) -> None:
    refused = refusal("cq_watch", text)
    assert "is not the id of a task" in str(refused)
    assert "\x1b" not in str(refused)
    assert refused.returncode == WatchCode.NOT_FOUND


@pytest.mark.parametrize("text", ["00000000-0000-0000-0000-00000000abcd", "00ff"])
def test_an_unknown_id_gets_one_sentence(text: str) -> None:
    assert "There is no task" in str(refusal("cq_watch", text))


@pytest.mark.parametrize("option", ["--timeout=-1", "--timeout=nan", "--since=-3"])
def test_odd_options_are_refused(option: str) -> None:
    assert "from 0 to " in str(refusal("cq_watch", "0", option))


# --- what it prints, and its code -----------------------------------------------------------------


def test_an_ended_tree_is_shown_whole(settings: Any) -> None:
    settings.CQ = {**settings.CQ, "SITE_URL": "https://shop.example"}
    task = fan_out.delay(12)
    drain()
    said, code = run("cq_watch", str(task.id))
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == f"https://shop.example/cq/t/{task.id}/"
    assert re.search(r"└ \S+ ×12: 12 ok in ", said)


def test_a_failure_gives_1_and_its_error() -> None:
    task = fail.delay("no paper")
    drain()
    said, code = run("cq_watch", str(task.id))
    assert code == WatchCode.FAILURE
    assert "no paper" in said
    assert "has failed" in said


def test_the_failure_of_a_subtask_gives_1() -> None:
    task = parent_of.delay(fail.name)
    drain()
    assert run("cq_watch", str(task.id))[1] == WatchCode.FAILURE


def test_the_failure_of_a_link_gives_1() -> None:
    task = noop.delay()
    task.chain(fail)
    drain()
    said, code = run("cq_watch", str(task.id))
    assert code == WatchCode.FAILURE
    assert "→ fail: failed" in said


def test_a_revoked_task_gives_2() -> None:
    task = noop.delay()
    task.revoke()
    said, code = run("cq_watch", str(task.id))
    assert code == WatchCode.REVOKED
    assert "was revoked" in said


def test_a_retried_task_that_succeeds_gives_0() -> None:
    task = flaky.delay(2)
    drain(now=timedelta(minutes=1))
    assert run("cq_watch", str(task.id))[1] == 0


def test_the_time_may_be_over_first() -> None:
    task = noop.delay()
    began = time.monotonic()
    said, code = run("cq_watch", str(task.id), "--timeout", "0.3")
    assert code == WatchCode.TIMEOUT
    assert time.monotonic() - began < 3
    assert f"manage.py cq_watch {task.id} --since 0" in said
    task.refresh_from_db()
    assert task.status == Task.STATUS_QUEUED


def test_a_pruned_task_ends_the_watch(tree: Tree) -> None:
    out = io.StringIO()
    follower = Follower(tree.root)
    Task.objects.all().delete()
    Stream.objects.all().delete()
    assert watch(tree.root, follower, PlainDisplay(out), None) is WatchCode.NOT_FOUND
    assert "no longer in the database" in out.getvalue()


# --- the record -----------------------------------------------------------------------------------


def test_lines_come_once_in_order_from_any_number(tree: Tree) -> None:
    tree.log(*(f"line {number}" for number in range(1, 2502)))
    follower = Follower(tree.root, since=0)
    first = follower.look()
    assert [line["seq"] for line in first.lines] == list(range(1, 2502))
    assert follower.look().lines == []
    tree.log("one more")
    assert [line["message"] for line in follower.look().lines] == ["one more"]
    again = Follower(tree.root, since=2500).look()
    assert [line["seq"] for line in again.lines] == [2501, 2502]


def test_who_comes_late_sees_the_last_lines(tree: Tree) -> None:
    tree.log(*(f"line {number}" for number in range(TAIL + 500)))
    look = Follower(tree.root).look()
    assert [line["seq"] for line in look.lines] == list(range(501, TAIL + 501))


def test_of_a_subtask_only_its_own_lines_are_shown(tree: Tree) -> None:
    child, sibling = tree.child(), tree.child()
    below = Task(parent=child, root=tree.root, depth=2, func_name="tests.cell")
    Task.objects.bulk_create([below])
    for task in (tree.root, sibling, child, below):
        tree.log(f"{task.func_name} {task.id}", task=task)
    shown = Follower(child).look().lines
    assert [line["task"] for line in shown] == [str(child.id), str(below.id)]


def test_an_adopted_task_is_followed_into_its_new_tree(tree: Tree) -> None:
    lonely = Task(func_name="tests.lonely")
    Task.objects.bulk_create([lonely])
    follower = Follower(lonely)
    assert follower.look().code is None
    Task.objects.filter(pk=lonely.pk).update(root=tree.id, parent=tree.id, depth=1)
    tree.log("from the new tree", task=lonely)
    assert [line["message"] for line in follower.look().lines] == ["from the new tree"]


def test_hostile_lines_cannot_steer_the_terminal(tree: Tree) -> None:
    tree.log("\x1b[2J\x1b]0;title\x07quiet\n12:00:00 forged line")
    tree.move("S")
    said, _ = run("cq_watch", str(tree.id))
    assert "\x1b" not in said
    assert "] quiet\n    12:00:00 forged line" in said


# --- live, as a process ---------------------------------------------------------------------------


@pytest.fixture
def no_services(worker_process: WorkerFactory) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        **worker_process.environment,
        **worker_process.layer_environment(),
    }


def watching(worker_process: WorkerFactory, task: Task, *options: str) -> Any:
    return worker_process.manage("cq_watch", str(task.id), *options)


def test_a_running_tree_is_followed_to_its_end(
    worker_process: WorkerFactory, wait_until: Any
) -> None:
    task = fan_out.delay(6, 0.3)
    watcher = watching(worker_process, task)
    wait_until(lambda: "fan_out: queued" in watcher.output(), timeout=20)
    worker_process("-c", "4")
    assert watcher.process.wait(20) == 0
    said = watcher.output()
    assert f"/cq/t/{task.id}/" in said.splitlines()[0]
    assert "└ doze ×6: 6 ok" in said
    assert said.count("fan_out: ok") == 1
    assert "has succeeded" in said


def test_ctrl_c_leaves_the_task_alone(
    worker_process: WorkerFactory, wait_until: Any, tree: Tree
) -> None:
    tree.log("before")
    watcher = watching(worker_process, tree.root)
    wait_until(lambda: "before" in watcher.output(), timeout=20)
    watcher.send(signal.SIGINT)
    assert watcher.process.wait(10) == WatchCode.INTERRUPTED
    assert f"cq_watch {tree.id} --since 1" in watcher.output()
    assert "Traceback" not in watcher.output()
    tree.root.refresh_from_db()
    assert tree.root.status == Task.STATUS_RUNNING


def test_on_a_terminal_the_tree_is_drawn_with_bars(no_services: dict[str, str], tree: Tree) -> None:
    for _ in range(5):
        tree.child()
    tree.move("S", Task.objects.filter(parent=tree.id).first())
    tree.log("\x1b[31mred\x1b[0m \x1b[2Jalert")
    said = on_a_terminal(no_services, "cq_watch", str(tree.id), "--timeout", "0.5")
    assert "row ×5" in said
    assert "✔" not in said
    assert "━" in said
    assert "1 ok, 4 queued" in said
    assert "\x1b[31mred" in said
    assert "\x1b[2J" not in said


def on_a_terminal(environment: dict[str, str], *command: str) -> str:
    """Run a command on a terminal of its own; return all it wrote."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), *command],
        cwd=ROOT,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while select.select([ours], [], [], 20)[0]:
            said += os.read(ours, 65536)
    except OSError:  # the other end is closed: the command has ended
        pass
    finally:
        os.close(ours)
        process.wait(10)
    return said.decode()

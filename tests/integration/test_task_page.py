"""The page of a task: what it shows and to whom, what it costs, and what can be done there."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext

from cq.models import LogLine, Stream, Task
from cq.web.tokens import read_token, watch_token
from tests.conftest import Layers
from tests.integration.test_access import Person, staff
from tests.integration.watching import Tree
from tests.integration.watching import rows as thread_for_rows
from tests.sampleapp.tasks import echo

HOSTILE = '"><img src=x onerror="alert(1)"><script>alert(2)</script>'
EVERYTHING = ("view_task", "view_task_payload", "revoke_task", "retry_task", "run_task")


@pytest.fixture
def tree(database: Any, use_layers: Layers) -> Tree:
    use_layers("none")
    return Tree()


def boss() -> Person:
    return Person("boss", *EVERYTHING, is_staff=True)


def html(client: Client, task: object, suffix: str = "") -> str:
    response = client.get(address(task, suffix))
    assert response.status_code == 200, response.content
    return response.content.decode()


def address(task: object, suffix: str = "") -> str:
    return f"/cq/t/{getattr(task, 'id', task)}/{suffix}"


class TestWhatItShows:
    def test_a_stranger_is_sent_to_log_in_and_others_get_404(self, tree: Tree):
        assert Client().get(address(tree)).status_code == 302
        visitor = Person("visitor").client
        for suffix in ("", "part", "lines", "log.txt", "do/revoke"):
            assert visitor.get(address(tree, suffix)).status_code == 404
            assert visitor.get(address(uuid4(), suffix)).status_code == 404

    def test_a_visitor_is_asked_to_log_in_whatever_the_id(self, tree: Tree):
        for task in (tree, uuid4()):
            response = Client().get(address(task))
            assert response.status_code == 302
            assert response["Location"].startswith("/admin/login/?next=/cq/t/")

    def test_nothing_is_inline(self, tree: Tree):
        tree.log("one")
        page = html(boss().client, tree)
        assert "<style" not in page
        assert " style=" not in page
        assert " on" not in "".join(re.findall(r"<[a-z]+ [^>]*>", page)).replace(" only", "")
        assert page.count("<script") == len(re.findall(r'<script [^>]*src="/static/', page))

    def test_staff_see_the_tree_and_the_log_and_neither_data_nor_buttons(self, tree: Tree):
        tree.move("R", args=["secret-argument"])
        tree.child()
        tree.log("one", "two")
        page = html(staff().client, tree)
        assert "import_csv" in page
        assert page.count('class="tp-node') == 1
        assert page.count('class="tp-line') == 2
        for hidden in ("secret-argument", "do/revoke", "do/run_again", 'id="data"'):
            assert hidden not in page

    def test_the_owner_sees_neither_errors_nor_data(self, tree: Tree):
        ann = Person("ann")
        Task.objects.filter(pk=tree.id).update(owner=str(ann.user.pk), args=["argument"])
        failure = {"attempt": 1, "type": "ValueError", "message": "bad", "traceback": "Traceback"}
        tree.move("F", error="bad magic", errors=[failure])
        page = html(ann.client, tree)
        for hidden in ("bad magic", "ValueError", "argument", "do/"):
            assert hidden not in page

    def test_payloads_have_their_own_permission_and_are_masked(self, tree: Tree):
        tree.move("S", args=["argument"], kwargs={"password": "hunter2"}, result={"rows": 7})
        page = html(boss().client, tree)
        assert "argument" in page
        assert "rows" in page
        assert "hunter2" not in page

    def test_a_huge_result_is_shown_in_part(self, tree: Tree):
        tree.move("S", result=[[HOSTILE, number] for number in range(10_000)])
        page = html(boss().client, tree)
        assert "characters more" in page
        assert "<img src=x" not in page
        assert len(page) < 100_000

    def test_what_a_task_says_stays_text_in_every_place(self, tree: Tree):
        failure = {"attempt": 1, "type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
        Task.objects.filter(pk=tree.id).update(
            func_name=HOSTILE, args=[HOSTILE], kwargs={HOSTILE: HOSTILE}, owner=HOSTILE
        )
        Task.objects.filter(pk=tree.child().pk).update(func_name=HOSTILE)
        tree.log(HOSTILE, f"\x1b[31m{HOSTILE}")
        tree.move("F", error=HOSTILE, errors=[failure], queue=HOSTILE[:80])
        client = boss().client
        for suffix in ("", "part", "do/retry", "do/run_again"):
            page = html(client, tree, suffix)
            assert "<img src=x" not in page
            assert "<script>alert" not in page
            assert "&lt;img src=x" in page

    def test_a_child_shows_what_is_below_it_and_the_way_up(self, tree: Tree):
        child, other = tree.child(), tree.child()
        grandchild = tree.child()
        Task.objects.filter(pk=grandchild.pk).update(parent=child)
        tree.log("of the root")
        tree.log("of the child", task=child)
        page = html(staff().client, child)
        assert str(grandchild.pk) in page
        assert str(other.pk) not in page
        assert f'href="/cq/t/{tree.id}/"' in page
        assert "of the child" in page
        assert "of the root" not in page

    def test_many_siblings_are_folded_with_their_failures_open(self, tree: Tree):
        children = [tree.child() for _ in range(25)]
        tree.move("F", children[7], error="boom")
        page = html(staff().client, tree)
        assert "row × 25" in page
        assert "1 failed · 24 queued" in page
        assert page.count('class="tp-node is-') == 1
        assert f"/cq/t/{children[7].pk}/" in page

    def test_why_it_waits_is_said(self, tree: Tree):
        assert "No worker is running" in html(staff().client, tree)

    def test_the_same_page_stands_in_the_admin(self, tree: Tree):
        tree.child()
        client = boss().client
        assert f"/admin/cq/task/{tree.id}/live/" in html_at(
            client, f"/admin/cq/task/{tree.id}/change/"
        )
        page = html_at(client, f"/admin/cq/task/{tree.id}/live/")
        assert "Django administration" in page
        assert f"/admin/cq/task/{tree.id}/live/do/revoke" in page
        assert "/cq/t/" not in page.replace(f"/cq/t/{tree.id}/watch", "")
        assert Person("visitor").client.get(f"/admin/cq/task/{tree.id}/live/").status_code == 302


def html_at(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.content
    return response.content.decode()


def grow(tree: Tree, count: int) -> None:
    """Give the tree children in all states, of functions with few and with many siblings."""
    now = datetime.now(UTC)
    letters = "QYSSSSFE"
    ended = set("SFE")
    tasks = [
        Task(
            func_name=f"shop.tasks.step_{number % 60}",
            parent=tree.root,
            root=tree.root,
            depth=1,
            status=letters[number % len(letters)],
            attempts=1,
            started=now - timedelta(seconds=60),
            finished=now if letters[number % len(letters)] in ended else None,
        )
        for number in range(count)
    ]
    Task.objects.bulk_create(tasks)
    Stream.objects.update_or_create(root=tree.id, defaults={"tree_open": count + 1})


def log_many(tree: Tree, count: int) -> None:
    now = datetime.now(UTC)
    LogLine.objects.bulk_create(
        LogLine(
            root=tree.id,
            seq=number,
            task=tree.id,
            func_name="shop.tasks.import_csv",
            level=(10, 20, 20, 30, 40)[number % 5],
            message=f"line {number} of many",
            at=now,
        )
        for number in range(1, count + 1)
    )
    Stream.objects.update_or_create(root=tree.id, defaults={"seq": count, "tree_open": 1})


class TestWhatItCosts:
    def test_a_thousand_nodes_cost_as_many_queries_as_one_and_under_300_ms(self, tree: Tree):
        client = boss().client

        def visit() -> tuple[int, float]:
            """Queries, and the seconds that the server was busy, however loaded it is."""
            with CaptureQueriesContext(connection) as captured:
                began = time.thread_time()
                html(client, tree)
                seconds = time.thread_time() - began
            return len(captured), seconds

        tree.child()
        log_many(tree, 10)
        visit()
        few, _ = visit()
        grow(tree, 998)
        LogLine.objects.all().delete()
        log_many(tree, 3000)
        many, _ = visit()
        usual = median(visit()[1] for _ in range(5))
        print(f"\n1,000 nodes, 3,000 lines: {many} queries, {usual * 1000:.0f} ms")  # noqa: T201
        assert many == few
        assert many <= 20
        assert usual < 0.3, f"{usual * 1000:.0f} ms"


class TestTheLog:
    def test_older_lines_come_in_pages_of_500(self, tree: Tree):
        log_many(tree, 1200)
        client = staff().client
        answer = client.get(address(tree, "lines"), {"before": 700}).json()
        assert [line["seq"] for line in answer["lines"]] == list(range(200, 700))
        assert answer["more"] is True
        answer = client.get(address(tree, "lines"), {"before": 200}).json()
        assert (len(answer["lines"]), answer["more"]) == (199, False)
        answer = client.get(address(tree, "lines"), {"after": 1000}).json()
        assert [answer["lines"][0]["seq"], answer["lines"][-1]["seq"]] == [1001, 1200]

    def test_a_search_reads_the_whole_record(self, tree: Tree):
        log_many(tree, 1200)
        client = staff().client
        answer = client.get(address(tree, "lines"), {"q": "LINE 7 of"}).json()
        assert [line["seq"] for line in answer["lines"]] == [7]
        answer = client.get(address(tree, "lines"), {"level": 40, "before": 50}).json()
        assert [line["seq"] for line in answer["lines"]] == list(range(4, 50, 5))

    @pytest.mark.parametrize("query", ["before=-1", "after=x", "level=9999999999999999999999"])
    def test_a_number_that_is_none_is_refused(self, tree: Tree, query: str):
        assert staff().client.get(f"{address(tree, 'lines')}?{query}").status_code == 400

    def test_it_can_be_taken_home(self, tree: Tree):
        log_many(tree, 2500)
        client = staff().client
        response = client.get(address(tree, "log.txt"))
        text = b"".join(response.streaming_content).decode()
        assert text.count("\n") == 2500
        assert text.endswith("line 2500 of many\n")
        response = client.get(address(tree, "log.jsonl"))
        assert response["Content-Disposition"] == f'attachment; filename="{tree.id}.jsonl"'
        rows = [json.loads(row) for row in b"".join(response.streaming_content).splitlines()]
        assert [row["seq"] for row in rows] == list(range(1, 2501))
        assert client.get(address(tree, "log.exe")).status_code == 404

    async def test_it_streams_from_a_loop_too(self, database: Any, use_layers: Layers):
        use_layers("none")
        with thread_for_rows() as rows:
            tree = await rows(Tree)
            await rows(log_many, tree, 1500)
            person = await rows(staff)
            client = AsyncClient()
            client.cookies["sessionid"] = person.session
            response: Any = await client.get(address(tree, "log.txt"))
            text = b"".join([part async for part in response.streaming_content]).decode()
            assert text.count("\n") == 1500


class TestWhatCanBeDone:
    def test_revoking_is_asked_for_done_and_written_down(self, tree: Tree):
        for _ in range(3):
            tree.child()
        client = boss().client
        assert "4 tasks will never start" in html(client, tree, "do/revoke")
        assert LogEntry.objects.count() == 0
        response = client.post(address(tree, "do/revoke"))
        assert (response.status_code, response["Location"]) == (302, address(tree))
        assert set(Task.objects.values_list("status", flat=True)) == {"E"}
        [entry] = LogEntry.objects.all()
        assert (entry.object_id, entry.change_message) == (str(tree.id), "Revoked.")
        assert entry.user.username == "boss"

    def test_only_what_failed_runs_again(self, tree: Tree):
        good, bad = tree.child(), tree.child()
        tree.move("W", children_open=2)
        for task, status in ((good, "S"), (bad, "F"), (tree.root, "I")):
            tree.move(status, task, children_open=0)
        Task.objects.filter(pk=tree.id).update(children_failed=1)
        client = boss().client
        assert "What has succeeded keeps its result" in html(client, tree, "do/retry_failed")
        assert client.post(address(tree, "do/retry_failed")).status_code == 302
        status = dict(Task.objects.values_list("pk", "status"))
        assert (status[good.pk], status[bad.pk], status[tree.id]) == ("S", "Q", "W")

    def test_a_refusal_is_explained_in_place(self, tree: Tree):
        response = boss().client.post(address(tree, "do/retry"))
        assert response.status_code == 409
        assert "cannot be retried so" in response.content.decode()
        assert LogEntry.objects.count() == 0

    def test_what_makes_no_sense_any_more_is_not_offered(self, tree: Tree):
        client = boss().client
        page = html(client, tree, "do/retry")
        assert "Retry is not possible any more: the task is Queued." in page
        assert 'type="submit"' not in page
        page = html(client, tree, "do/run_again")
        assert "No task is registered as &#x27;" in page

    def test_a_task_runs_again_with_other_arguments(self, tree: Tree):
        Task.objects.filter(pk=tree.id).update(func_name=echo.name, args=[1], queue="video")
        client = boss().client
        assert "&quot;" not in html(client, tree, "do/run_again")
        response = client.post(address(tree, "do/run_again"), {"args": "[2]", "kwargs": "{}"})
        new = Task.objects.exclude(pk=tree.id).get()
        assert response["Location"] == address(new)
        assert (new.args, new.queue, new.func_name) == ([2], "video", echo.name)
        refused = client.post(address(tree, "do/run_again"), {"args": "[3, 4", "kwargs": "{}"})
        assert refused.status_code == 409
        assert "args is not JSON" in refused.content.decode()
        assert ">[3, 4</textarea>" in refused.content.decode()  # not lost with the refusal

    def test_masked_arguments_are_neither_shown_nor_written_over(self, tree: Tree):
        Task.objects.filter(pk=tree.id).update(func_name=echo.name, kwargs={"password": "hunter2"})
        client = boss().client
        page = html(client, tree, "do/run_again")
        assert "hunter2" not in page
        assert "textarea" not in page
        client.post(address(tree, "do/run_again"), {"kwargs": '{"password": "***"}'})
        assert Task.objects.exclude(pk=tree.id).get().kwargs == {"password": "hunter2"}

    @pytest.mark.parametrize("do", ["revoke", "retry", "retry_failed", "run_again", "delete"])
    def test_nobody_does_what_they_may_not(self, tree: Tree, do: str):
        ann = Person("ann", "view_task", "view_task_payload", is_staff=True)
        for method in (ann.client.get, ann.client.post):
            assert method(address(tree, f"do/{do}")).status_code == 404
        assert Task.objects.get().status == "Q"

    def test_another_site_cannot_do_it(self, tree: Tree):
        person = boss()
        strict = Client(enforce_csrf_checks=True)
        strict.cookies["sessionid"] = person.session
        assert strict.post(address(tree, "do/revoke")).status_code == 403
        assert Task.objects.get().status == "Q"

    def test_what_a_socket_or_a_poll_does_is_written_down_too(self, tree: Tree):
        person = boss()
        assert person.client.post(address(tree, "revoke")).status_code == 200
        assert LogEntry.objects.get().change_message == "Revoked."


class TestRenewal:
    def test_the_user_of_a_token_gets_a_new_one_and_others_get_404(self, tree: Tree):
        ann, bob = Person("ann"), Person("bob")
        token = watch_token(tree.root, ["log"], user=ann.user, ttl=-1, renewable=True)
        headers = {"Authorization": f"Bearer {token}"}
        answer = ann.client.post(address(tree, "token"), headers=headers)
        assert read_token(answer.json()["token"]).scopes == {"progress", "log"}
        other = UUID(int=tree.id.int ^ 1)
        refused = [
            bob.client.post(address(tree, "token"), headers=headers),
            Client().post(address(tree, "token"), headers=headers),
            ann.client.post(address(other, "token"), headers=headers),
            ann.client.post(address(tree, "token")),
        ]
        assert {response.status_code for response in refused} == {404}
        ann.deactivate()
        assert ann.client.post(address(tree, "token"), headers=headers).status_code == 404

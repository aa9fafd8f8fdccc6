"""The pages of cq: what they show, to whom, what they cost, and what they let one do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cq.definition.status import Status
from cq.models import Progress, RepeatingTask, Task, Worker
from tests.sampleapp.tasks import add, echo, noop

pytestmark = pytest.mark.usefixtures("database")

HOSTILE = '<img src=x onerror="alert(1)">'
PAGES = ("overview", "tasks", "repeating", "workers")
PLACES = ("cq:", "admin:cq_")
LIVE = {"X-CQ-Live": "1"}


def log_in(*permissions: str, superuser: bool = False, staff: bool = True) -> Client:
    name = f"ann-{uuid4().hex[:6]}"
    user = User.objects.create(username=name, is_staff=staff, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def boss(database: Any) -> Client:
    return log_in(superuser=True)


def ended(status: Status = Status.FAILURE, **changes: Any) -> Task:
    values = {"func_name": echo.name, "status": status, "finished": timezone.now()}
    return Task.objects.create(**{**values, **changes})


def running(worker: Worker, **changes: Any) -> Task:
    values = {"func_name": noop.name, "status": Status.RUNNING, "worker": worker}
    return Task.objects.create(
        **{**values, "claim_token": uuid4(), "started": timezone.now(), **changes}
    )


def html(client: Client, name: str, place: str = "cq:", **query: str) -> str:
    response = client.get(reverse(f"{place}{name}"), query)
    assert response.status_code == 200
    return str(response.content.decode())


def listed(text: str) -> list[str]:
    return re.findall(r'<tr data-key="([0-9a-f-]{36})"', text)


# --- who may look -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("place", PLACES)
def test_a_page_is_for_staff_who_may_see_tasks(name: str, place: str) -> None:
    address = reverse(f"{place}{name}")
    assert log_in("view_task").get(address).status_code == 200
    assert log_in().get(address).status_code == 404
    stranger = Client().get(address)
    assert stranger.status_code == 302
    assert "login" in stranger["Location"]
    outsider = log_in("view_task", staff=False).get(address)
    assert outsider.status_code == (404 if place == "cq:" else 302)


@pytest.mark.parametrize("name", PAGES)
def test_the_same_page_stands_in_the_admin_with_its_frame(boss: Client, name: str) -> None:
    own, inside = html(boss, name), html(boss, name, "admin:cq_")
    assert "cq-page" in own
    assert "Django administration" not in own
    assert "Django administration" in inside
    assert reverse("admin:cq_tasks") in inside
    assert reverse("cq:tasks") not in inside
    for text in (own, inside):
        assert not re.findall(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son\w+=", text)


def test_an_open_page_gets_its_content_alone_and_an_idle_one_a_304(boss: Client) -> None:
    ended()
    address = reverse("cq:tasks")
    first = boss.get(address, headers=LIVE)
    assert b"<html" not in first.content
    assert b"csrfmiddlewaretoken" not in first.content
    again = boss.get(address, headers={**LIVE, "If-None-Match": first["ETag"]})
    assert again.status_code == 304
    ended()
    changed = boss.get(address, headers={**LIVE, "If-None-Match": first["ETag"]})
    assert changed.status_code == 200


# --- the overview -------------------------------------------------------------------------------


def test_the_overview_tells_what_needs_attention(boss: Client) -> None:
    calm = html(boss, "overview")
    assert "No worker is alive" in calm
    Worker.objects.create(hostname="web-1", pid=4, slots=3, queues=["mail"])
    Worker.objects.create(hostname="web-2", pid=5, slots=3, alive=False, state="dead")
    Task.objects.create(func_name=noop.name, queue="video")
    Task.objects.create(func_name="gone.task", queue="mail", parked=True)
    ended(Status.LOST)
    entry = RepeatingTask.schedule("0 3 * * *", noop, name="nightly")
    RepeatingTask.objects.filter(pk=entry.pk).update(next_run=timezone.now() - timedelta(hours=1))
    text = html(boss, "overview")
    for words in (
        *("Worker web-2:5 died", "1 task was lost today", "No worker listens to video"),
        *("No worker knows gone.task; 1 wait", "nightly is 1 h late"),
    ):
        assert words in text


def test_the_overview_costs_the_same_for_any_number_of_rows(boss: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            html(boss, "overview")
        return len(captured)

    for name in ("web-1", "web-2"):
        running(Worker.objects.create(hostname=name, slots=8))
    before = queries()
    for number in range(10):
        worker = Worker.objects.create(hostname=f"more-{number}", slots=8)
        running(worker)
        Task.objects.create(func_name=noop.name, queue=f"q{number}")
    assert queries() == before <= 12


@pytest.mark.parametrize("span", ["15m", "1h", "24h", "7d", "odd"])
def test_every_span_of_the_chart(boss: Client, span: str) -> None:
    assert "cq-bars" in html(boss, "overview", span=span)


# --- the list -----------------------------------------------------------------------------------


def test_the_list_shows_roots_newest_first_and_subtasks_on_demand(boss: Client) -> None:
    root = ended(Status.SUCCESS)
    child = ended(func_name=noop.name, parent=root, root=root, depth=1)
    other = ended()
    assert listed(html(boss, "tasks")) == [str(other.id), str(root.id)]
    assert listed(html(boss, "tasks", q="parent:any")) == [
        *(str(other.id), str(child.id)),
        str(root.id),
    ]
    assert listed(html(boss, "tasks", q=f"parent:{root.id}")) == [str(child.id)]
    assert set(listed(html(boss, "tasks", q=str(root.id)))) == {str(root.id), str(child.id)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("state:failed", {"fails", "lost"}),
        ("state:failure", {"fails"}),
        ("state:success", {"fine"}),
        ("state:queued", {"waits", "parks"}),
        ("state:running", {"runs"}),
        ("state:active", {"waits", "parks", "runs"}),
        ("state:queued,running queue:mail", {"waits"}),
        ("name:fine", {"fine"}),
        ("name:f*", {"fails", "fine"}),
        ("FINE", {"fine"}),
        ("worker:web-1", {"runs"}),
        ("worker:web-2", set()),
        ("owner:7", {"fine"}),
        ("error:boo", {"fails"}),
        ("error:100%", set()),
        ("since:1h", {"waits", "parks", "runs", "fails", "fine"}),
        ("until:1h", {"lost"}),
        ("nothing", set()),
        (f"id:{uuid4()}", set()),
    ],
)
def test_each_qualifier(boss: Client, text: str, names: set[str]) -> None:
    worker = Worker.objects.create(hostname="web-1", pid=4)
    Task.objects.create(func_name="waits", queue="mail")
    Task.objects.create(func_name="parks", parked=True)
    running(worker, func_name="runs")
    ended(func_name="fails", error="Boom")
    ended(Status.SUCCESS, func_name="fine", owner="7")
    ended(Status.LOST, func_name="lost", submitted=timezone.now() - timedelta(hours=2))
    found = listed(html(boss, "tasks", q=text))
    assert {Task.objects.get(pk=id).func_name for id in found} == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stat:failed", "There is no qualifier &#x27;stat&#x27;"),
        ("state:broken", "There is no state &#x27;broken&#x27;"),
        ("id:nonsense", "id:nonsense is no id"),
        ("since:yesterday", "since:yesterday is no time"),
        ("since:2026-02-31", "is no time"),
        ('name:"open', ""),
    ],
)
def test_what_cannot_be_read_is_said_and_the_rest_holds(
    boss: Client, text: str, words: str
) -> None:
    task = ended(func_name="kept")
    ended(func_name="other")
    answer = html(boss, "tasks", q=f"kept {text}")
    assert words in answer
    assert str(task.id) in answer or not words


def test_pages_go_on_by_key_and_show_each_task_once(boss: Client) -> None:
    Task.objects.bulk_create(Task(func_name=noop.name) for _ in range(120))
    seen: list[str] = []
    address = reverse("cq:tasks")
    while address:
        text = boss.get(address).content.decode()
        seen += listed(text)
        found = re.search(r'href="([^"]+)" rel="next"', text)
        address = found[1].replace("&amp;", "&") if found else ""
    assert len(seen) == len(set(seen)) == 120
    assert boss.get(reverse("cq:tasks"), {"before": "x", "q": "\0"}).status_code == 200


def test_a_window_that_ends_early_says_where_to_go_on(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq.models.task_list.WINDOW", 10)
    old = ended(func_name="rare")
    Task.objects.bulk_create(Task(func_name=noop.name) for _ in range(25))
    text, looks = html(boss, "tasks", q="name:rare"), 1
    while not listed(text):
        assert "there may be more further back" in text
        found = re.search(r'href="([^"]+)" rel="next"', text)
        assert found
        text, looks = boss.get(found[1].replace("&amp;", "&")).content.decode(), looks + 1
    assert listed(text) == [str(old.id)]
    assert looks == 3


def test_the_list_takes_six_queries_for_any_length() -> None:
    client = log_in("view_task", "retry_task")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            html(client, "tasks")
        return len(captured)

    for number in range(60):
        root = ended(error="boom") if number % 2 else ended(Status.SUCCESS)
        ended(parent=root, root=root, depth=1)
        Progress.objects.create(task=root.id, root=root.id, done=1, total=2, message="half")
    assert queries() <= 6


def test_hostile_text_is_shown_as_text(boss: Client) -> None:
    ended(func_name=HOSTILE, queue=HOSTILE, error=HOSTILE, owner=HOSTILE, args=[HOSTILE])
    Task.objects.create(func_name=HOSTILE, queue=HOSTILE, parked=True)
    Task.objects.create(func_name=noop.name, queue=HOSTILE)
    running(Worker.objects.create(hostname=HOSTILE, queues=[HOSTILE]), func_name=HOSTILE)
    entry = RepeatingTask.schedule("0 3 * * *", noop, name=HOSTILE)
    said = boss.post(reverse("cq:repeating_act"), {"do": f"run-{entry.pk}"}, follow=True)
    assert "Started &lt;img" in said.content.decode()
    assert "<img src=x" not in said.content.decode()
    for name in PAGES:
        for query in ({}, {"q": HOSTILE}, {"q": f'state:"{HOSTILE}'}):
            assert "<img src=x" not in html(boss, name, **query)


def test_arguments_are_for_those_who_may_see_payloads_and_masked() -> None:
    ended(args=["visible"], kwargs={"password": "s3cret"})
    assert "visible" not in html(log_in("view_task"), "tasks")
    text = html(log_in("view_task", "view_task_payload"), "tasks")
    assert "visible" in text
    assert "s3cret" not in text


# --- actions ------------------------------------------------------------------------------------


def act(client: Client, do: str, *tasks: Task, **more: str) -> Any:
    data = {"do": do, "task": [str(task.id) for task in tasks], **more}
    return client.post(reverse("cq:tasks_act"), data, follow=True)


def test_retry_asks_first_then_acts_and_is_on_record() -> None:
    client = log_in("view_task", "retry_task")
    failed, fine = ended(), ended(Status.SUCCESS)
    asked = act(client, "retry", failed, fine).content.decode()
    assert "Retry 1 task?" in asked
    assert "Not these" in asked
    failed.refresh_from_db()
    assert failed.status == Status.FAILURE
    done = act(client, "retry", failed, confirmed="1", back="/cq/tasks/?q=state:failed")
    assert done.redirect_chain == [("/cq/tasks/?q=state:failed", 302)]
    assert "Retried 1 task." in done.content.decode()
    failed.refresh_from_db()
    assert failed.status == Status.QUEUED
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(failed.id), "Retried.")


def test_revoke_says_what_it_stops_and_why_it_could_not(boss: Client) -> None:
    task = running(Worker.objects.create())
    assert "1 runs now and is asked to stop" in act(boss, "revoke", task).content.decode()
    act(boss, "revoke", task, confirmed="1")
    task.refresh_from_db()
    assert task.status == Status.REVOKED
    asked = act(boss, "retry", ended(Status.SUCCESS)).content.decode()
    assert "Nothing to retry" in asked
    assert "Retry 0 tasks" not in asked
    refused = act(boss, "retry", ended(Status.SUCCESS), confirmed="1").content.decode()
    assert "Retried 0 tasks." in refused
    assert "cq-message warning" in refused


def test_an_action_needs_its_own_permission_and_a_token_of_the_site() -> None:
    task = ended()
    client = log_in("view_task", "revoke_task")
    assert act(client, "retry", task, confirmed="1").status_code == 403
    assert act(client, "delete", task).status_code == 404
    assert act(log_in("retry_task"), "retry", task, confirmed="1").status_code == 404
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create(username="boss", is_staff=True, is_superuser=True))
    for name in ("tasks_act", "repeating_act"):
        for place in PLACES:
            assert strict.post(reverse(f"{place}{name}"), {"do": "retry"}).status_code == 403
    task.refresh_from_db()
    assert task.status == Status.FAILURE
    for away in ("https://evil.example/", "//evil.example", "javascript:alert(1)"):
        answer = act(client, "revoke", confirmed="1", back=away)
        assert answer.redirect_chain == [(reverse("cq:tasks"), 302)]


# --- repeating tasks and workers ----------------------------------------------------------------


def test_an_entry_in_words_with_its_runs_and_its_buttons(boss: Client) -> None:
    entry = RepeatingTask.schedule(
        "30 2 * * 1-5", add, [1, 2], name="nightly", timezone="Europe/Berlin"
    )
    now = timezone.now()
    for number, status in enumerate((Status.SUCCESS, Status.FAILURE)):
        tick = now - timedelta(days=2 - number)
        ended(status, repeating=entry, tick=tick, started=now - timedelta(seconds=4))
    text = html(boss, "repeating")
    assert "02:30" in text
    assert "Europe/Berlin" in text
    assert text.count("<li><time") == 5
    runs = re.findall(r'class="cq-run cq-run-(\w+)"', text)
    assert runs == ["success", "failure"]
    assert "4.0 s" in text

    def press(do: str, client: Client = boss) -> Any:
        return client.post(reverse("cq:repeating_act"), {"do": f"{do}-{entry.pk}"}, follow=True)

    assert "is paused." in press("pause").content.decode()
    entry.refresh_from_db()
    assert not entry.enabled
    assert "goes on. It runs next at" in press("resume").content.decode()
    started = press("run").content.decode()
    task = Task.objects.get(repeating=entry, tick=None)
    assert f'Started nightly as task <a href="/cq/t/{task.pk}/">{task.pk}</a>.' in started
    assert "has not ended; nothing was started" in press("run").content.decode()
    assert Task.objects.filter(repeating=entry, tick=None).count() == 1
    assert list(LogEntry.objects.values_list("change_message", flat=True))[::-1][:2] == [
        *("Disabled.", "Enabled."),
    ]
    assert press("run", log_in("view_task")).status_code == 403
    assert press("pause", log_in("view_task", "run_task")).status_code == 403
    assert boss.post(reverse("cq:repeating_act"), {"do": "pause-x"}).status_code == 404


def test_entries_are_found_and_paged_by_name_for_a_constant_number_of_queries(
    boss: Client,
) -> None:
    for number in range(55):
        RepeatingTask.schedule("0 3 * * *", noop, name=f"entry {number:02}")
    with CaptureQueriesContext(connection) as captured:
        first = html(boss, "repeating")
    assert len(captured) <= 6
    assert first.count('id="entry-') == 50
    assert html(boss, "repeating", after="entry 49").count('id="entry-') == 5
    assert html(boss, "repeating", q="entry 1").count('id="entry-') == 10


def test_a_function_that_code_alone_may_start_has_no_second_door(boss: Client) -> None:
    entry = RepeatingTask.objects.create(
        name="check", func_name="cq.tasks.call_command_task", args=["check"]
    )
    answer = boss.post(reverse("cq:repeating_act"), {"do": f"run-{entry.pk}"}, follow=True)
    assert "is not started by hand" in answer.content.decode()
    assert not Task.objects.exists()


def test_workers_show_what_they_run_and_how_late_their_heartbeat_is(boss: Client) -> None:
    late = timezone.now() - timedelta(seconds=20)
    worker = Worker.objects.create(hostname="web-1", pid=4, slots=2, beat_at=late)
    task = running(worker)
    Worker.objects.create(hostname="web-2", pid=5, alive=False, state="dead", beat_at=late)
    text = html(boss, "workers")
    assert "web-1:4" in text
    assert str(task.id) in text
    assert text.count('class="cq-cell"') == 1
    assert text.count('class="cq-cell cq-free"') == 1
    assert "cq-tone-warn" in text
    assert "It fell silent for longer than the lease" in text


def test_the_admin_leads_to_the_pages() -> None:
    index = reverse("admin:app_list", args=["cq"])
    text = log_in("view_task").get(index).content.decode()
    assert all(reverse(f"admin:cq_{name}") in text for name in PAGES)
    assert (
        reverse("admin:cq_overview") not in log_in("view_repeatingtask").get(index).content.decode()
    )

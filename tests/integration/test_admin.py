"""The admin: what it shows, to whom, what it costs, and what its forms refuse."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cq.definition import registry
from cq.definition.status import Status
from cq.models import LogLine, RepeatingTask, Stream, Task
from tests.sampleapp.tasks import add, echo, noop

pytestmark = pytest.mark.usefixtures("database")

HOSTILE = '<img src=x onerror="alert(1)">'
TASKS = "admin:cq_task_changelist"
ENTRIES = "admin:cq_repeatingtask_changelist"


def log_in(*permissions: str, superuser: bool = False) -> Client:
    user = User.objects.create(username="ann", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin_client(database: Any) -> Client:
    return log_in(superuser=True)


def failed(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "func_name": echo.name,
        "status": Status.FAILURE,
        "finished": timezone.now(),
        "error": "boom",
    }
    return Task.objects.create(**{**values, **changes})


def page(task: Task) -> str:
    return reverse("admin:cq_task_change", args=[task.pk])


# --- tasks --------------------------------------------------------------------------------------


def test_the_list_shows_id_time_function_and_status(admin_client: Client) -> None:
    task = failed()
    html = admin_client.get(reverse(TASKS)).content.decode()
    assert str(task.pk) in html
    assert echo.name in html
    assert "Failure" in html


def test_the_list_neither_counts_nor_reads_payloads_and_costs_the_same_for_any_length(
    admin_client: Client,
) -> None:
    def queries(rows: int) -> list[str]:
        Task.objects.all().delete()
        Task.objects.bulk_create(Task(func_name=noop.name) for _ in range(rows))
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert admin_client.get(reverse(TASKS)).status_code == 200
        return [query["sql"] for query in captured if '"cq_task"' in query["sql"]]

    few, many = queries(1), queries(300)
    assert len(few) == len(many)
    for sql in many:
        assert "COUNT(" not in sql.upper()
        assert "LIMIT" in sql.upper()
        assert '"result"' not in sql
        assert '"kwargs"' not in sql


def test_every_page_can_be_reached_and_odd_pages_are_harmless(admin_client: Client) -> None:
    Task.objects.bulk_create(Task(func_name=noop.name) for _ in range(180))
    seen: set[str] = set()
    for number in (1, 2, 3, 4):
        html = admin_client.get(reverse(TASKS), {"p": number}).content.decode()
        seen |= set(re.findall(r"/admin/cq/task/([0-9a-f-]{36})/change", html))
    assert len(seen) == 180
    for odd in ("0", "-1", "x", "9" * 40, "101", "٣"):
        assert admin_client.get(reverse(TASKS), {"p": odd}).status_code in (200, 302)


def test_search_by_id_finds_the_tree_and_by_name_the_function(admin_client: Client) -> None:
    root = failed()
    child = failed(func_name=noop.name, parent=root, root=root, depth=1)
    other = failed()

    def found(term: str) -> set[str]:
        html = admin_client.get(reverse(TASKS), {"q": term}).content.decode()
        return set(re.findall(r"/admin/cq/task/([0-9a-f-]{36})/change", html))

    assert found(str(root.pk)) == {str(root.pk), str(child.pk)}
    assert found("echo") == {str(root.pk), str(other.pk)}
    assert found(HOSTILE) == set()
    roots = admin_client.get(reverse(TASKS), {"level": "root", "function": noop.name})
    assert str(child.pk) not in roots.content.decode()


@pytest.mark.parametrize(
    "query", ["kwargs__token__startswith=a", "owner=1", "parent__owner=1", "_connector=OR"]
)
def test_a_filter_that_the_page_does_not_offer_is_refused(admin_client: Client, query: str) -> None:
    assert admin_client.get(f"{reverse(TASKS)}?{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "status__exact=F",
        "submitted__gte=2020-01-01 00:00:00%2B00:00",
        "level=root",
        "function=x",
        "e=1",
    ],
)
def test_the_filters_of_the_page_work(admin_client: Client, query: str) -> None:
    failed()
    assert admin_client.get(f"{reverse(TASKS)}?{query}").status_code == 200


def test_subtasks_of_a_task_are_listed(admin_client: Client) -> None:
    root = failed()
    child = failed(parent=root, root=root, depth=1)
    html = admin_client.get(f"{reverse(TASKS)}?parent__id__exact={root.pk}").content.decode()
    assert str(child.pk) in html


def test_the_page_of_a_task_is_read_only_and_escapes_everything(admin_client: Client) -> None:
    task = failed(
        func_name=HOSTILE,
        args=[HOSTILE],
        kwargs={"password": "hunter2", HOSTILE: 1},
        error=HOSTILE,
        errors=[{"attempt": 1, "at": "now", "traceback": HOSTILE}],
    )
    Stream.objects.create(root=task.pk, seq=1)
    LogLine.objects.create(root=task.pk, seq=1, task=task.pk, func_name="x", message=HOSTILE)
    html = admin_client.get(page(task)).content.decode()
    assert HOSTILE not in html
    assert "&lt;img" in html
    assert "hunter2" not in html
    assert not re.search(r"<(input|textarea|select)[^>]* name=\"(status|result|func_name)", html)
    assert admin_client.post(page(task), {"status": "S"}).status_code == 403


def test_pages_hold_no_inline_script_or_handler(admin_client: Client) -> None:
    entry = RepeatingTask.objects.create(func_name=noop.name)
    change = reverse("admin:cq_repeatingtask_change", args=[entry.pk])
    for address in (page(failed()), change, reverse("admin:cq_repeatingtask_add")):
        html = admin_client.get(address).content.decode()
        for attributes, body in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL):
            assert "src=" in attributes or "application/json" in attributes
            assert not body.strip() or "application/json" in attributes
        assert not re.search(r"<[^>]+\son[a-z]+\s*=", html)


def test_payloads_are_for_those_who_may_see_them() -> None:
    client = log_in("view_task")
    task = failed(kwargs={"colour": "vermilion"})
    assert "vermilion" not in client.get(page(task)).content.decode()
    client = Client()
    user = User.objects.get()
    user.user_permissions.add(Permission.objects.get(codename="view_task_payload"))
    client.force_login(user)
    assert "vermilion" in client.get(page(task)).content.decode()


def test_retry_and_revoke_are_posts_with_their_own_permissions() -> None:
    client = log_in("view_task", "retry_task")
    task, waiting = failed(), Task.objects.create(func_name=echo.name)
    retry = reverse("admin:cq_task_retry", args=[task.pk])
    revoke = reverse("admin:cq_task_revoke", args=[waiting.pk])
    assert client.get(retry).status_code == 403
    assert client.post(revoke).status_code == 403
    assert client.post(retry).status_code == 302
    task.refresh_from_db()
    assert task.status == Status.QUEUED
    assert LogEntry.objects.filter(object_id=str(task.pk)).exists()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(retry).status_code == 403


def test_the_buttons_fit_the_status(admin_client: Client) -> None:
    ended, waiting = failed(), Task.objects.create(func_name=echo.name)
    assert "/retry/" in admin_client.get(page(ended)).content.decode()
    assert "/revoke/" not in admin_client.get(page(ended)).content.decode()
    assert "/retry/" not in admin_client.get(page(waiting)).content.decode()
    assert "/revoke/" in admin_client.get(page(waiting)).content.decode()


def test_actions_on_many_say_what_they_could_not_do(admin_client: Client) -> None:
    ended = failed()
    success = failed(status=Status.SUCCESS)
    data = {"action": "retry_selected", "_selected_action": [str(ended.pk), str(success.pk)]}
    response = admin_client.post(reverse(TASKS), data, follow=True)
    html = response.content.decode()
    assert "Retried 1 task." in html
    assert "cannot be retried" in html


def test_nobody_adds_or_deletes_a_task(admin_client: Client) -> None:
    task = failed()
    assert admin_client.get(reverse("admin:cq_task_add")).status_code == 403
    delete = reverse("admin:cq_task_delete", args=[task.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": [str(task.pk)], "post": "yes"}
    admin_client.post(reverse(TASKS), data)
    assert Task.objects.count() == 1


# --- repeating tasks ----------------------------------------------------------------------------


def form(**changes: Any) -> dict[str, Any]:
    values = {
        "func_name": add.name,
        "args": "[1]",
        "kwargs": '{"second": 2}',
        "crontab": "30 2 * * 1-5",
        "timezone": "Europe/Berlin",
        "enabled": "on",
        "coalesce": "on",
        "on_missed": "run",
        "name": "",
        "queue": "",
        "priority": "",
        "result_ttl": "",
        "read_version": "1",
    }
    return {**values, **changes}


def save(client: Client, entry: RepeatingTask | None = None, **changes: Any) -> str:
    address = (
        reverse("admin:cq_repeatingtask_change", args=[entry.pk])
        if entry
        else reverse("admin:cq_repeatingtask_add")
    )
    return client.post(address, form(**changes), follow=True).content.decode()


def test_an_entry_is_made(admin_client: Client) -> None:
    save(admin_client)
    [entry] = RepeatingTask.objects.all()
    assert (entry.func_name, entry.args, entry.kwargs) == (add.name, [1], {"second": 2})
    assert entry.name == f"{add.name}(1, second=2) 30 2 * * 1-5"
    assert (entry.queue, entry.priority) == (None, None)
    assert entry.next_run is not None
    html = admin_client.get(reverse(ENTRIES)).content.decode()
    assert "At 02:30, Monday to Friday (Europe/Berlin)" in html


def test_the_form_offers_the_registered_names(admin_client: Client) -> None:
    html = admin_client.get(reverse("admin:cq_repeatingtask_add")).content.decode()
    assert 'list="cq-task-names"' in html
    assert f'<option value="{add.name}">' in html
    assert 'value="cq.tasks.call_command_task"' not in html


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"func_name": "os.system"}, "No task is registered as"),
        ({"func_name": HOSTILE}, "No task is registered as"),
        ({"func_name": "cq.tasks.call_command_task"}, "not started from a form"),
        ({"func_name": "cq.tasks.call_errorback"}, "not started from a form"),
        ({"crontab": "60 * * * *"}, "The minute goes from 0 to 59"),
        ({"crontab": "0 0 30 2 *"}, "never fires"),
        ({"timezone": "../../etc/passwd"}, "is unknown"),
        ({"args": "{}", "kwargs": '{"frist": 1}'}, "frist|first"),
        ({"args": "[1, 2, 3]", "kwargs": "{}"}, "too many positional"),
        ({"args": "nonsense"}, "valid JSON"),
        ({"queue": "two words"}, "queue name"),
        ({"priority": "101"}, "-100 to 100"),
    ],
)
def test_the_form_names_what_is_wrong(
    admin_client: Client, changes: dict[str, str], words: str
) -> None:
    html = save(admin_client, **changes)
    assert re.search(words, html)
    assert HOSTILE not in html
    assert not RepeatingTask.objects.exists()


def test_an_edit_by_somebody_else_is_not_overwritten(admin_client: Client) -> None:
    save(admin_client)
    entry = RepeatingTask.objects.get()
    save(admin_client, entry, name=entry.name, args="[2]")
    html = save(admin_client, entry, name=entry.name, args="[3]")
    assert "Somebody else saved this entry" in html
    entry.refresh_from_db()
    assert (entry.args, entry.version) == ([2], 2)


def test_an_edit_while_a_tick_is_due_loses_no_tick(admin_client: Client) -> None:
    save(admin_client, crontab="0 * * * *")
    entry = RepeatingTask.objects.get()
    due = timezone.now().replace(minute=0, second=0, microsecond=0)
    RepeatingTask.objects.filter(pk=entry.pk).update(next_run=due)
    save(admin_client, entry, name=entry.name, crontab="5 * * * *")
    entry.refresh_from_db()
    assert entry.crontab == "5 * * * *"
    assert entry.next_run is not None
    assert entry.next_run > timezone.now()
    assert [task.tick for task in Task.objects.filter(repeating=entry)] == [due]


def test_a_vanished_function_is_shown(admin_client: Client) -> None:
    save(admin_client)
    RepeatingTask.objects.update(func_name="shop.tasks.vanished")
    html = admin_client.get(reverse(ENTRIES)).content.decode()
    assert "No task is registered as" in html


def test_run_now_needs_its_permission() -> None:
    entry = RepeatingTask.objects.create(func_name=noop.name)
    address = reverse("admin:cq_repeatingtask_run", args=[entry.pk])
    client = log_in("view_repeatingtask")
    assert client.post(address).status_code == 403
    User.objects.get().user_permissions.add(Permission.objects.get(codename="run_task"))
    assert client.get(address).status_code == 403
    assert client.post(address).status_code == 302
    assert Task.objects.filter(repeating=entry).count() == 1
    html = client.post(address, follow=True).content.decode()
    assert "has not ended; nothing was started" in html


def test_enable_and_disable(admin_client: Client) -> None:
    entry = RepeatingTask.objects.create(func_name=noop.name)
    for action, is_on in (("disable", False), ("enable", True)):
        data = {"action": action, "_selected_action": [str(entry.pk)]}
        admin_client.post(reverse(ENTRIES), data)
        entry.refresh_from_db()
        assert entry.enabled is is_on
        assert (entry.next_run is not None) is is_on


def test_the_preview_says_what_a_crontab_does(admin_client: Client) -> None:
    address = reverse("admin:cq_repeatingtask_preview")
    query = {"crontab": "30 2 * * *", "timezone": "Europe/Berlin"}
    answer = admin_client.get(address, query).json()
    assert answer["words"] == "At 02:30"
    assert len(answer["runs"]) == 5
    assert all("02:30" in run["local"] or run["note"] for run in answer["runs"])
    wrong = admin_client.get(address, {"crontab": "61 * * * *", "timezone": "UTC"}).json()
    assert "minute" in wrong["error"]
    hostile = admin_client.get(address, {"crontab": HOSTILE, "timezone": "UTC"})
    assert hostile["Content-Type"] == "application/json"
    assert set(json.loads(hostile.content)) == {"error"}


def test_the_preview_is_for_those_who_may_see_entries() -> None:
    client = log_in("view_task")
    assert client.get(reverse("admin:cq_repeatingtask_preview")).status_code == 403


def test_the_next_run_is_soon(admin_client: Client) -> None:
    save(admin_client, crontab="* * * * *")
    entry = RepeatingTask.objects.get()
    assert entry.next_run is not None
    assert entry.next_run - timezone.now() <= timedelta(minutes=1)
    assert registry.find(entry.func_name) is not None

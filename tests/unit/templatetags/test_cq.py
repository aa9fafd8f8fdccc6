"""The tags: what they leave in a page, with and without JavaScript."""

from __future__ import annotations

import json
import re
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.utils.functional import SimpleLazyObject

from cq.errors import InvalidOption
from cq.models import Task
from cq.web.tokens import Claims, read_token, renew_token


def render(source: str, **context: Any) -> str:
    return Template("{% load cq %}" + source).render(Context(context))


def claims(page: str) -> Claims:
    found = re.search(r'token="([^"]+)"', page)
    assert found
    return read_token(found[1])


@pytest.fixture
def task() -> Task:
    return Task(func_name="shop.tasks.import_csv", status="R")


def test_the_script_is_written_once_a_page():
    page = render("{% cq_script %}{% cq_script %}")
    assert page == '<script type="module" src="/static/cq/cq.js"></script>'


def test_the_script_carries_the_nonce_of_the_page():
    lazy = SimpleLazyObject(lambda: "abc")
    for context in ({"csp_nonce": "abc"}, {"request": SimpleNamespace(csp_nonce=lazy)}):
        assert 'nonce="abc"' in render("{% cq_script %}", **context)


def test_the_element_and_its_fallback(task: Task):
    page = render('{% cq_task task show="bar log" %}', task=task)
    assert f'<cq-task task="{task.id}"' in page
    assert 'show="bar log"' in page
    assert 'state="running"' in page
    assert f'poll="/cq/t/{task.id}/watch"' in page
    assert f'id="cq-{task.id}"' in page
    assert '<progress aria-label="shop.tasks.import_csv"></progress>' in page
    assert "<span>shop.tasks.import_csv: Running</span>" in page


@pytest.mark.parametrize(("status", "value"), [("S", "1"), ("F", "0"), ("E", "0")])
def test_the_fallback_of_a_task_that_has_ended(task: Task, status: str, value: str):
    task.status = status
    assert f' value="{value}"></progress>' in render("{% cq_task task %}", task=task)


@pytest.mark.parametrize(
    ("arguments", "scopes"),
    [
        ("", {"progress"}),
        ('show="bar log"', {"progress", "log"}),
        ('show="tree,result,error"', {"progress", "tree", "result", "error"}),
        ('actions="revoke retry"', {"progress", "revoke", "retry"}),
    ],
)
def test_the_token_allows_what_is_shown(task: Task, arguments: str, scopes: set[str]):
    found = claims(render("{% cq_task task " + arguments + " %}", task=task))
    assert (found.task, found.scopes, found.user) == (task.id, scopes, None)


def test_the_token_is_bound_to_the_user_who_is_logged_in(task: Task):
    member = SimpleNamespace(pk=7, is_authenticated=True, is_active=True)
    request = SimpleNamespace(user=member)
    assert claims(render("{% cq_task task %}", task=task, request=request)).user == "7"
    request = SimpleNamespace(user=AnonymousUser())
    assert claims(render("{% cq_task task %}", task=task, request=request)).user is None


def test_the_token_of_a_user_is_renewed_and_that_of_nobody_is_not(task: Task):
    member = SimpleNamespace(pk=7, is_authenticated=True, is_active=True)
    page = render("{% cq_task task %}", task=task, request=SimpleNamespace(user=member))
    assert f'refresh-url="/cq/t/{task.id}/token"' in page
    assert renew_token(re.findall(r'token="([^"]+)"', page)[0], user=member)
    assert "refresh-url" not in render("{% cq_task task %}", task=task)


def test_an_error_stands_in_the_page_for_those_who_may_see_it(task: Task):
    task.status, task.error = "F", "<b>boom</b>"
    assert "<pre>&lt;b&gt;boom&lt;/b&gt;</pre>" in render(
        '{% cq_task task show="error" %}', task=task
    )
    assert "boom" not in render('{% cq_task task show="bar log" %}', task=task)


def test_its_words_are_those_of_the_project(task: Task, monkeypatch: pytest.MonkeyPatch):
    assert "words=" not in render("{% cq_task task %}", task=task)
    german = {"Running": "Läuft", "Retry": '"Nochmal"'}
    monkeypatch.setattr("cq.templatetags.cq.gettext", lambda text: german.get(text, text))
    page = render("{% cq_task task %}", task=task)
    [words] = re.findall(r'words="([^"]+)"', page)
    assert json.loads(unescape(words)) == german
    assert ": Läuft</span>" in page


def test_a_token_of_your_own(task: Task):
    assert 'token="mine"' in render('{% cq_task task token="mine" %}', task=task)


def test_further_attributes_are_those_of_the_element(task: Task):
    page = render('{% cq_task task id="t1" label="Import" class="wide" data_x="1" %}', task=task)
    for attribute in ('id="t1"', 'label="Import"', 'class="wide"', 'data-x="1"'):
        assert attribute in page
    assert "<span>Import: Running</span>" in page


def test_whatever_is_in_a_value_stays_a_value(task: Task):
    task.func_name = '"><script>alert(1)</script>'
    page = render("{% cq_task task label=label %}", task=task, label='" onclick="x')
    assert "<script>" not in page
    assert 'onclick="x"' not in page


@pytest.mark.parametrize("arguments", ['show="bars"', 'actions="delete"'])
def test_a_word_it_does_not_know(task: Task, arguments: str):
    with pytest.raises(InvalidOption, match="Expected some of"):
        render("{% cq_task task " + arguments + " %}", task=task)

"""Watch tokens: what they carry, and what is not one."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.core import signing

from cq.errors import InvalidOption, InvalidToken
from cq.web.tokens import (
    RENEWABLE_SECONDS,
    SALT,
    SCOPES,
    read_token,
    renew_token,
    watch_token,
)

TASK = uuid4()


def refusal(token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        read_token(token)
    return str(caught.value.facts["code"])


def test_the_default_shows_progress_and_nothing_else():
    claims = read_token(watch_token(TASK))
    assert (claims.task, claims.scopes, claims.user) == (TASK, {"progress"}, None)
    assert abs(claims.expires - time.time() - 86400) < 5


def test_progress_is_part_of_every_token():
    assert read_token(watch_token(TASK, ["log"])).scopes == {"progress", "log"}
    assert read_token(watch_token(TASK, SCOPES)).scopes == set(SCOPES)


def test_a_task_may_be_given_by_its_row():
    assert read_token(watch_token(SimpleNamespace(id=TASK))).task == TASK  # type: ignore[arg-type]


def test_it_is_bound_to_a_user_that_is_logged_in():
    assert read_token(watch_token(TASK, user=SimpleNamespace(pk=7))).user == "7"
    assert read_token(watch_token(TASK, user=SimpleNamespace(pk=None))).user is None


def test_it_is_short_enough_for_a_frame_and_safe_in_an_attribute():
    token = watch_token(TASK, SCOPES, user=SimpleNamespace(pk=uuid4()))
    assert len(token) < 300
    assert not set(token) & set("\"'<>& ")


def test_an_unknown_scope_is_an_error_that_names_the_known_ones():
    with pytest.raises(InvalidOption, match="'everything' is not a scope"):
        watch_token(TASK, ["everything"])


def test_it_ends():
    token = watch_token(TASK, ttl=60)
    with time_machine.travel(time.time() + 59):
        assert read_token(token)
    with time_machine.travel(time.time() + 61):
        assert refusal(token) == "expired"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        ":" * 5,
        "\u00e9" * 10,
        "\ud800",
        "x" * 2000,
        signing.dumps([TASK.hex, "progress", None, 2**40], salt="another"),
        signing.dumps("text", salt=SALT),
        signing.dumps([1, 2, 3, 4], salt=SALT),
        signing.dumps(["zz", "progress", None, 2**40], salt=SALT),
        signing.dumps([TASK.hex, "progress", None, "soon"], salt=SALT),
        signing.dumps([TASK.hex, "progress", None], salt=SALT),
        signing.dumps({"task": TASK.hex}, salt=SALT),
    ],
)
def test_what_this_site_did_not_make_is_forged(token: str):
    assert refusal(token) == "forged"


def test_a_changed_token_is_forged():
    token = watch_token(TASK)
    assert refusal(token[:-1] + ("a" if token[-1] != "a" else "b")) == "forged"
    assert refusal("a" + token) == "forged"


def test_another_secret_key_forges_all(settings: Any):
    token = watch_token(TASK)
    settings.SECRET_KEY = "changed"
    assert refusal(token) == "forged"


ANN, BOB = SimpleNamespace(pk=7), SimpleNamespace(pk=8)


def test_its_user_renews_it_even_after_its_end_with_the_same_scopes():
    token = watch_token(TASK, ["log"], user=ANN, ttl=60, renewable=True)
    with time_machine.travel(time.time() + 3600):
        claims = read_token(renew_token(token, user=ANN))
        assert (claims.task, claims.scopes, claims.user) == (TASK, {"progress", "log"}, "7")
        assert abs(claims.expires - time.time() - 86400) < 5


@pytest.mark.parametrize(
    ("made", "asks", "after", "code"),
    [
        ({"user": ANN, "renewable": True}, BOB, 0, "refused"),
        ({"user": ANN, "renewable": True}, None, 0, "refused"),
        ({"renewable": True}, ANN, 0, "refused"),
        ({"user": ANN}, ANN, 0, "expired"),
        ({"user": ANN, "renewable": True}, ANN, RENEWABLE_SECONDS + 1, "expired"),
    ],
)
def test_nobody_else_does_and_not_for_ever(made: Any, asks: Any, after: int, code: str):
    token = watch_token(TASK, **made)
    with time_machine.travel(time.time() + after), pytest.raises(InvalidToken) as caught:
        renew_token(token, user=asks)
    assert caught.value.facts["code"] == code


def test_renewing_does_not_lengthen_the_time_to_renew():
    token = watch_token(TASK, user=ANN, renewable=True)
    with time_machine.travel(time.time() + 6 * 86400):
        token = renew_token(token, user=ANN)
    with time_machine.travel(time.time() + 8 * 86400), pytest.raises(InvalidToken):
        renew_token(token, user=ANN)


def test_a_forged_one_is_not_renewed():
    token = watch_token(TASK, user=ANN, renewable=True)
    with pytest.raises(InvalidToken):
        renew_token(token[:-2] + "xx", user=ANN)

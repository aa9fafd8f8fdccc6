"""The registry: names are looked up, never imported, and a miss names the nearest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cq.definition import registry
from cq.definition.signature import Signature
from cq.errors import InvalidTask, TaskNotRegistered


def send(cqt: Any, *args: Any, **kwargs: Any) -> None: ...


def plain() -> None: ...


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.run", "a.b:c", "__import__", "", "\0", "antigravity.x" * 99]
)
def test_a_foreign_name_is_never_imported(name: str) -> None:
    before = set(sys.modules)
    assert registry.find(name) is None
    with pytest.raises(TaskNotRegistered) as caught:
        registry.lookup(name)
    assert set(sys.modules) == before
    assert caught.value.name == name  # type: ignore[attr-defined]
    assert len(str(caught.value)) < 600


def test_a_miss_names_the_nearest(make_task: Callable[..., Any]) -> None:
    make_task(send, "mail.send_letter")
    with pytest.raises(TaskNotRegistered, match=r"The nearest is 'mail\.send_letter'") as caught:
        registry.lookup("mail.send_leter")
    assert isinstance(caught.value, LookupError)
    make_task(send)  # whose name is its path
    with pytest.raises(TaskNotRegistered) as caught:
        registry.lookup(f"{__name__}.sent")
    assert str(caught.value).count(f"'{__name__}.send'") == 1


def test_a_function_is_found_by_name_and_path(make_task: Callable[..., Any]) -> None:
    made = make_task(send, "mail")
    assert registry.find("mail") is registry.find(f"{__name__}.send") is made
    assert registry.aliases(made) == {"mail", f"{__name__}.send"}
    assert "mail" in registry.names()
    assert f"{__name__}.send" not in registry.names()
    assert made in registry.functions()
    registry.unregister(made)
    assert registry.find("mail") is registry.find(f"{__name__}.send") is None


def test_whatever_names_a_task_function_makes_a_signature(make_task: Callable[..., Any]) -> None:
    made = make_task(send, "mail")
    for given in (made, "mail", f"{__name__}.send", send):
        signature = registry.signature_of(given, (1,), {"a": 2})
        assert (signature.function, signature.args, signature.kwargs) == (made, (1,), {"a": 2})
    assert registry.signature_of(made.using(queue="slow"), (), {}).options.queue == "slow"


def test_a_signature_takes_more_arguments(make_task: Callable[..., Any]) -> None:
    made = make_task(send)
    given = made.using(queue="slow").signature(1, a=1)
    signature = registry.signature_of(given, (2,), {"a": 2})
    assert signature == Signature(made, (1, 2), {"a": 2}, given.options)


@pytest.mark.parametrize("given", [plain, len, 5, None, SimpleNamespace(function=plain), object])
def test_what_names_no_task_function(given: Any) -> None:
    with pytest.raises(InvalidTask, match="is not a task function"):
        registry.signature_of(given, (), {})


def test_a_name_that_is_not_registered(make_task: Callable[..., Any]) -> None:
    with pytest.raises(TaskNotRegistered):
        registry.signature_of("nowhere", (), {})

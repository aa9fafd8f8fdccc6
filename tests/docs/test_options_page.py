"""docs/reference/options.md lists each option of @task and of a call, with its default."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest

from cq.decorators import task
from cq.definition.link import _CHAIN_OPTIONS
from cq.definition.options import CallOptions, TaskOptions
from cq.definition.retry_policy import RetryPolicy
from tests.docs.test_reference import page, table

TEXT = page("options.md")
OF_TASKS = table(TEXT.partition("## Of a call")[0], "Option", "Default", "Unit", "Meaning")
OF_CALLS = table(TEXT.partition("## Of a call")[2], "Option", "Default", "Unit", "Meaning")


def defaults(made: Any) -> dict[str, str]:
    return {
        field.name: repr(field.default) if field.default is not MISSING else "dotted path"
        for field in fields(made)
    }


def test_each_option_of_a_task_function_is_listed_with_its_default() -> None:
    expected = defaults(TaskOptions)
    del expected["retry"]
    for name, parameter in inspect.signature(RetryPolicy.build).parameters.items():
        expected[name] = repr(parameter.default)
    assert {name: default for name, default, _, _ in OF_TASKS} == expected


def test_the_typed_options_are_the_same() -> None:
    from typing import get_overloads

    typed = set(inspect.signature(get_overloads(task)[1]).parameters)
    assert typed == {name for name, _, _, _ in OF_TASKS}


def test_each_option_of_a_call_is_listed_with_its_default() -> None:
    assert {name: default for name, default, _, _ in OF_CALLS} == defaults(CallOptions)


@pytest.mark.parametrize("row", [*OF_TASKS, *OF_CALLS], ids=lambda row: row[0])
def test_each_option_has_a_unit_and_a_sentence(row: list[str]) -> None:
    _, _, unit, meaning = row
    assert unit
    assert meaning.endswith(".")


def test_the_options_of_chain_are_named() -> None:
    last = TEXT.rpartition("`chain(")[2]
    assert [name for name in _CHAIN_OPTIONS if f"{name}=" not in last] == []

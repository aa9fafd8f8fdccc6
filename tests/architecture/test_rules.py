"""What imports cannot say: who writes a status, reads a setting, says on_commit."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.source import ROOT, Module, dotted, modules, written

GRAB_BAGS = {"utils", "util", "helpers", "common", "misc", "tools"}
SQL_WRITES_STATUS = re.compile(
    r"\bSET\b(?:(?!\bWHERE\b).)*\bstatus\b\s*=", re.IGNORECASE | re.DOTALL
)


def found_in(places: list[tuple[Module, ast.AST]]) -> str:
    return ", ".join(f"{module.name}:{getattr(node, 'lineno', 0)}" for module, node in places)


def writes_status(node: ast.AST) -> bool:
    """
    Whether this writes the column of stored rows.

    Setting the attribute of an instance does not: `Task.save()` is refused, so that it only
    describes a row not yet inserted, or mirrors what a transition just did.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("update", "aupdate"):
            named = any(keyword.arg == "status" for keyword in node.keywords)
            return named and not ast.unparse(node.func.value).startswith("vars(")
        if node.func.attr in ("bulk_update", "abulk_update"):
            return any(
                isinstance(inner, ast.Constant) and inner.value == "status"
                for inner in ast.walk(node)
            )
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and bool(SQL_WRITES_STATUS.search(node.value))
    )


def test_status_is_written_only_by_the_transitions():
    places = [
        (module, node)
        for module in written()
        if not module.name.startswith("cq/models/transitions")
        for node in module.nodes()
        if writes_status(node)
    ]
    assert not places, found_in(places)


@pytest.mark.parametrize(
    ("source", "writes"),
    [
        ("Task.objects.bulk_update(rows, ['status'])", True),
        ("task.status = 'S'", False),
        ("rows.update(status='S', queue='x')", True),
        ("cursor.execute('UPDATE cq_task SET queue = 1, status = 2 WHERE id = 3')", True),
        ("cursor.execute('UPDATE cq_task SET queue = 1 WHERE status = 2')", False),
        ("rows.filter(status='S')", False),
        ("vars(row).update(status='S')", False),
        ("Worker.objects.update(state='gone')", False),
    ],
)
def test_the_test_sees_a_written_status(source: str, writes: bool):
    assert any(writes_status(node) for node in ast.walk(ast.parse(source))) is writes


def test_settings_are_read_only_in_conf():
    places = [
        (module, node)
        for module in written()
        if module.name != "cq/conf.py"
        for node in module.nodes()
        if isinstance(node, ast.ImportFrom) and node.module == "django.conf"
        if any(alias.name == "settings" for alias in node.names)
    ]
    assert not places, found_in(places)


def test_on_commit_is_said_only_in_workflow():
    places = [
        (module, node)
        for module in written()
        if not module.name.startswith("cq/workflow/")
        for node in module.nodes()
        if (isinstance(node, ast.Attribute) and node.attr == "on_commit")
        or (isinstance(node, ast.ImportFrom) and "on_commit" in [a.name for a in node.names])
    ]
    assert not places, found_in(places)


def only_narrows(test: ast.expr) -> bool:
    """`assert x is not None` and `isinstance` tell the type checker what the code knows."""
    if isinstance(test, ast.BoolOp):
        return all(only_narrows(value) for value in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and dotted(test.func) == "isinstance"


def test_nothing_is_validated_by_assert():
    places = [
        (module, node)
        for module in written()
        for node in module.nodes()
        if isinstance(node, ast.Assert) and not only_narrows(node.test)
    ]
    assert not places, found_in(places)


def test_there_is_no_grab_bag():
    assert not [module.name for module in modules() if module.path.stem in GRAB_BAGS]


def test_every_module_says_what_lives_in_it():
    silent = [
        module.name
        for module in written()
        if module.text.strip() and not ast.get_docstring(module.tree)
    ]
    assert not silent


def test_the_public_names_are_documented():
    bare = [
        f"{module.name}:{node.lineno} {node.name}"
        for module in written()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and not ast.get_docstring(node)
        if not any(dotted(decorator) == "overload" for decorator in node.decorator_list)
    ]
    assert not bare, "\n".join(bare)


def test_tests_wait_for_events():
    places = [
        (module, node)
        for module in modules(ROOT / "tests")
        if not module.name.startswith(("tests/sampleapp/", "tests/benchmarks/"))
        if module.name != "tests/waiting.py"
        for node in module.nodes()
        if isinstance(node, ast.Call) and dotted(node.func) in ("time.sleep", "asyncio.sleep")
        # asyncio.sleep(0) gives way to the loop; it waits for nothing.
        if not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]
    assert not places, found_in(places)

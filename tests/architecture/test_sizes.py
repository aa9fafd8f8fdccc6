"""
The budget of sizes: files of at most 400 lines, functions of at most 50, six parameters.
A file of tests, which is read one test at a time, may have 600.

A module or function that outgrows it wants a second room. The budget is a test so that it is
noticed on the day it happens.
"""

from __future__ import annotations

import ast

from tests.architecture.source import ROOT, modules, written

FILE_LINES = 400
TEST_FILE_LINES = 600
FUNCTION_LINES = 50
POSITIONAL = 6


def test_no_file_outgrows_a_screenful_of_attention():
    code = [*written(), *modules(ROOT / "tools"), *modules(ROOT / "demo")]
    budget = dict.fromkeys(code, FILE_LINES)
    budget |= dict.fromkeys(modules(ROOT / "tests"), TEST_FILE_LINES)
    large = {
        module.name: lines
        for module, most in budget.items()
        if (lines := module.text.count("\n")) > most
    }
    assert not large


def test_no_function_outgrows_a_page():
    large = {
        f"{module.name}:{function.lineno} {function.name}": lines
        for module in written()
        for function in module.functions()
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert not large


def test_options_come_by_keyword():
    crowded = {
        f"{module.name}:{function.lineno} {function.name}": len(names)
        for module in written()
        for function in module.functions()
        if len(names := _positional(function)) > POSITIONAL
    }
    assert not crowded


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]

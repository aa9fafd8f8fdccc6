"""docs/guides/deploy.md says what the command, its signals and its exit codes are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cq.management.commands.cq_runworker import Command
from cq.worker.exit_codes import ExitCode

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "deploy.md").read_text()
OF_DJANGO = {
    *("-h", "--help", "--version", "-v", "--verbosity", "--settings", "--pythonpath"),
    *("--traceback", "--no-color", "--force-color", "--skip-checks"),
}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_option_is_on_the_page_and_no_other() -> None:
    parser = Command().create_parser("manage.py", "cq_runworker")
    options = {name for action in parser._actions for name in action.option_strings} - OF_DJANGO
    named = set()
    for line in section("The options").splitlines():
        if line.startswith("| `"):
            named |= set(re.findall(r"`(--?[a-z-]+)`", line.split("|")[1], re.IGNORECASE))
    assert named == options


def test_every_exit_code_is_on_the_page() -> None:
    codes = re.findall(r"^\| (\d) \|", section("Exit codes"), re.MULTILINE)
    assert [int(code) for code in codes] == [code.value for code in ExitCode]


@pytest.mark.parametrize("line", re.findall(r"cq_runworker[^\n\"`]*", PAGE))
def test_every_command_line_is_one_the_command_takes(line: str) -> None:
    Command().create_parser("manage.py", "cq_runworker").parse_args(line.split()[1:])


def test_every_exec_form_is_one_the_command_takes() -> None:
    lists = [ast.literal_eval(text) for text in re.findall(r"\[\"python\".*?\]", PAGE)]
    assert len(lists) == 2
    for _, script, command, *arguments in lists:
        assert (script, command) == ("manage.py", "cq_runworker")
        Command().create_parser(script, command).parse_args(arguments)


def test_the_settings_of_the_page_are_python() -> None:
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(snippet, "deploy.md", "exec")

"""
The source of cq as the architecture tests see it: modules, their lines and their trees.

Nothing here imports cq; a module that cannot be parsed fails the test that asks for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cq"


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Its place below the repository, as a person writes it: `cq/models/task.py`."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def is_migration(self) -> bool:
        return "migrations" in self.path.parts

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in self.nodes():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def modules(folder: Path = PACKAGE) -> list[Module]:
    """Every Python file below a folder, migrations included."""
    return [Module(path) for path in sorted(folder.rglob("*.py"))]


def written() -> list[Module]:
    """The modules of cq that people write: all but the migrations."""
    return [module for module in modules() if not module.is_migration]


def dotted(node: ast.AST) -> str:
    """`a.b.c` for such an expression, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])

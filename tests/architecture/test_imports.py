"""The import contract of pyproject.toml holds, and `import cq` costs nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture.source import PACKAGE, ROOT


def test_the_import_contracts_are_kept():
    # In a process of its own: import-linter re-configures logging, and disables our loggers.
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_importing_cq_loads_no_django_and_no_other_room():
    script = (
        "import sys, cq\n"
        "rooms = ('cq.', 'django', 'channels', 'asgiref', 'redis')\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(rooms)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_takes_the_name_of_a_public_name():
    import cq

    rooms = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert not rooms & set(cq.__all__), "`import cq.name` would replace the public name"

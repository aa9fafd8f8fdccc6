"""The import contract of pyproject.toml holds, and `import cq` costs nothing."""

from __future__ import annotations

import subprocess
import sys

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.architecture.source import PACKAGE, ROOT


def test_the_import_contracts_are_kept(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)

    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


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


def test_every_room_stands_in_the_layer_contract():
    import tomllib

    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in tool["contracts"] if c["id"] == "layers")["layers"]
    known = {
        name.strip(" ()") for line in layers for part in line.split("|") for name in part.split(":")
    }
    rooms = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    assert not rooms - known - {"__init__", "migrations"}

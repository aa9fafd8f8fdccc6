"""The runner behind `make cluster`: several processes, one output, one end."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.architecture.source import ROOT
from tools.procfile import read

RUN = """
import os, sys
from pathlib import Path
from tools.procfile import Runner, read
entries = read(Path(sys.argv[1]), {"worker": 2})
sys.exit(Runner(entries, directory=Path.cwd(), environment=os.environ).run())
"""


def start(procfile):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(procfile)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_a_procfile_gives_each_process_a_name(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text("# a comment: none\nweb: daphne x:y\n\nworker: run\n")

    entries = read(path, {"worker": 2})

    assert [(entry.name, entry.command) for entry in entries] == [
        ("web", "daphne x:y"),
        ("worker.1", "run"),
        ("worker.2", "run"),
    ]


def test_an_interrupt_ends_all_of_them_in_order(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text(
        "web: trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done\n"
        "worker: trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done\n"
    )
    runner = start(path)
    for _ in range(3):
        assert runner.stdout.readline().endswith("| up\n")

    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=20)

    assert output.count("| bye") == 3
    assert runner.returncode == 0


def test_one_that_ends_by_itself_ends_the_others(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text("web: exit 3\nworker: exec sleep 60\n")
    runner = start(path)

    output, _ = runner.communicate(timeout=20)

    assert "web ended with code 3; stopping the others." in output
    assert runner.returncode == 3

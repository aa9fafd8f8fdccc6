"""
A producer as a process of its own: enqueues tasks, and writes down what it was told.

One word a line goes to the file: `try` before a call, and the task's id after it has
returned. What stands there as an id has been acknowledged, however this process ended.
"""

from __future__ import annotations

import itertools
import random
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import Error, connection, transaction


class Command(BaseCommand):
    """`produce FILE [--count N] [--rate N] [--kinds a,b]`."""

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--count", type=int)
        parser.add_argument("--rate", type=float, default=50.0)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--kinds")

    def handle(self, *, file: Path, count: int | None, **options: Any) -> None:
        calls = import_module("tests.sampleapp.kinds").ENQUEUE
        kinds = options["kinds"].split(",") if options["kinds"] else list(calls)
        chance = random.Random(options["seed"])
        with file.open("a", buffering=1) as book:
            for _ in range(count) if count else itertools.count():
                book.write("try\n")
                try:
                    with transaction.atomic():
                        task = calls[chance.choice(kinds)]()
                except Error:
                    # Perhaps it is there, perhaps not: nobody was told.
                    connection.close()
                    time.sleep(0.2)
                    continue
                book.write(f"{task.id}\n")
                time.sleep(1 / options["rate"])

"""
`manage.py cq_runworker`: runs tasks until it is told to stop.

One process by default; with `-p N` a supervisor keeps N of them. The options stand over
the CQ setting. Exit codes are those of `cq.worker.exit_codes`.
"""

import asyncio
import logging
import os
import platform
import sys
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, SystemCheckError
from django.db import Error, connections

from cq import __version__, conf
from cq.definition import registry
from cq.definition.options import check_queue
from cq.errors import CQError, InvalidOption
from cq.models.queries import database
from cq.terminal.finding import overview
from cq.terminal.reaching import reach
from cq.terminal.task_lines import TaskLines
from cq.worker import health
from cq.worker.child import is_child, own_command, watch_supervisor
from cq.worker.collector import collect_seldom
from cq.worker.exit_codes import ExitCode
from cq.worker.options import WorkerOptions
from cq.worker.runner import Runner
from cq.worker.signals import signals_to
from cq.worker.supervisor import run_supervised

_REACH_SECONDS = 30.0

logger = logging.getLogger("cq.worker")


class Command(BaseCommand):
    """The worker."""

    # Run by handle(), which exits with 2 when one fails: starting again cannot help.
    requires_system_checks = ()
    help = "Run tasks until stopped: TERM or INT drains, a second one hands back at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options of product.md, each over the key of CQ that it names."""
        parser.add_argument(
            "-Q", "--queues", type=_queues, help="queues, best first, by commas (default: all)"
        )
        parser.add_argument(
            "-c", "--concurrency", type=_positive, dest="slots", help="async tasks at once (100)"
        )
        parser.add_argument(
            "--threads", type=_positive, help="sync tasks at once (min(8, CPUs + 4))"
        )
        parser.add_argument(
            "-p", "--processes", type=_positive, default=1, help="worker processes (1)"
        )
        parser.add_argument(
            "-b", "--burst", action="store_true", help="run what is due, then exit 0"
        )
        parser.add_argument("--grace", type=_seconds, help="seconds for running tasks (30)")
        parser.add_argument("--max-tasks", type=_positive, help="end after so many tasks")
        parser.add_argument("--max-memory", type=_positive, help="end above so many MiB")
        parser.add_argument("--health", type=_address, help="serve /livez and /readyz here")
        parser.add_argument(
            "--scheduler",
            action=BooleanOptionalAction,
            default=None,
            help="fire repeating tasks (default: CQ['SCHEDULER'])",
        )
        parser.add_argument(
            "--max-wait",
            type=_seconds,
            default=_REACH_SECONDS,
            help="seconds to wait for the database at start (30)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, and exit with the code that says why it ended."""
        _configure_logging(options["verbosity"])
        self._check_system(options["max_wait"])
        if options["processes"] > 1 and not is_child():
            grace = options["grace"] if options["grace"] is not None else conf.current().grace
            sys.exit(
                run_supervised(own_command(), options["processes"], grace, burst=options["burst"])
            )
        names = ("queues", "slots", "threads", "burst", "grace", "max_tasks", "max_memory")
        worker_options = WorkerOptions.from_settings(
            **{name: options[name] for name in names},
            scheduler=options["scheduler"],
            health=options["health"],
        )
        try:
            self._reach_database(options["max_wait"])
            collect_seldom()
            lines = TaskLines()
            if options["verbosity"] > 1:
                lines.connect()
            code = self._work(worker_options)
        except KeyboardInterrupt:  # before the worker listens to signals: it holds nothing yet
            code = ExitCode.CLEAN
        sys.exit(code)

    def _work(self, options: WorkerOptions) -> int:
        try:
            return asyncio.run(_run(options, self._say))
        except* InvalidOption as problems:
            self.stderr.write(str(problems.exceptions[0]))
        return ExitCode.USAGE

    def _check_system(self, patience: float) -> None:
        try:
            try:
                self.check()
            except Error:  # from Django 6.1 on its checks ask a SQLite database what it can
                self._reach_database(patience)
                self.check()
        except SystemCheckError as problem:
            self.stderr.write(str(problem))
            sys.exit(ExitCode.USAGE)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _reach_database(self, patience: float) -> None:
        obstacle = reach(patience, partial(logger.warning, "Waiting for the database: %s"))
        if obstacle is not None:
            self.stderr.write(obstacle.text)
            sys.exit(obstacle.code)


async def _run(options: WorkerOptions, say: Callable[[str], None]) -> int:
    runner = Runner(options)
    loop = asyncio.get_running_loop()
    watch_supervisor(lambda: loop.call_soon_threadsafe(runner.stop))
    say(_banner(options, runner))
    with signals_to(loop, drain=runner.stop, force=runner.force, quiet=runner.quiet):
        async with asyncio.TaskGroup() as group:
            server = None
            if options.health:
                host, port = health.parse_address(options.health)
                server = group.create_task(health.serve(host, port, runner.probe))
            group.create_task(_announce(runner, say))
            await runner.run()
            if server is not None:
                server.cancel()
    code = ExitCode.FORCED if runner.was_forced else ExitCode.CLEAN
    if runner.leaves_work:
        # A body that cannot be stopped would hold up the end of the loop; its task is back
        # in its queue.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _announce(runner: Runner, say: Callable[[str], None]) -> None:
    await runner.ready.wait()
    say(f"worker {runner.membership.worker} is ready")


def _banner(options: WorkerOptions, runner: Runner) -> str:
    settings = conf.current()
    connection = connections[database()]
    queues = ", ".join(options.queues) if options.queues else "all"
    layer = repr(settings.channel_layer) if settings.channel_layer else "none (rows are polled)"
    return "\n".join(
        [
            f"cq {__version__} worker on {platform.node()}, pid {os.getpid()}",
            f"  database  {connection.vendor}, at most {runner.sessions} sessions",
            f"  layer     {layer}",
            f"  queues    {queues}",
            f"  slots     {options.slots} async, {options.threads} threads, "
            f"{options.processes} processes",
            f"  tasks     {len(registry.names())} registered",
            f"  scheduler {'on' if options.scheduler and not options.burst else 'off'}",
            f"  pages     {overview() or 'none (the project does not include cq.urls)'}",
        ]
    )


def _configure_logging(verbosity: int) -> None:
    level = {0: logging.ERROR, 1: logging.INFO, 2: logging.INFO}.get(verbosity, logging.DEBUG)
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(
            level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    logging.getLogger("cq.worker").setLevel(level)


def _queues(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        _checked(check_queue, name)
    if not names:
        raise ArgumentTypeError(f"{text!r} names no queue. Write -Q high,low.")
    return names


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400.")
    return value


def _address(text: str) -> str:
    _checked(health.parse_address, text)
    return text


def _checked(check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except CQError as problem:
        raise ArgumentTypeError(str(problem)) from problem

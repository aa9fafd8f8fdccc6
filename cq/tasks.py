"""
The built-in tasks: housekeeping that one can start, chain and repeat like any other.

The workers keep house by themselves; these do it now, and serve schedules that were made
for the 2019 package. Below them is the tree that `cq_load_test` grows. None is atomic:
each works in short transactions of its own, or in none.
"""

import gc
import io
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management import call_command

from cq import conf
from cq.decorators import task
from cq.errors import CommandNotAllowed
from cq.execution import errorbacks
from cq.models import Task
from cq.worker.memory import peak_bytes
from cq.workflow.retention import clear_orphans, prune
from cq.workflow.upkeep import exhaust, maintain, ring_due

TYPES_SHOWN = 20


@task(atomic=False)
def clean_up(cqt: Any) -> int:
    """Delete every tree whose time is over, in batches; return the number of rows."""
    return exhaust(prune, lambda total: cqt.progress(total, None, "rows pruned"))


@task(atomic=False)
def clear_logs(cqt: Any) -> int:
    """Delete log lines and progress that belong to no task any more; return how many."""
    return exhaust(clear_orphans, lambda total: cqt.progress(total, None, "rows deleted"))


@task(atomic=False)
def retry_tasks(cqt: Any) -> int:
    """Ring the workers for tasks that are due, retries among them; return how many."""
    return ring_due()


@task(atomic=False)
def maintenance(cqt: Any) -> dict[str, int]:
    """Rescue, ring and prune, once and to the end; return what was touched."""
    done = maintain()
    cqt.log(", ".join(f"{name}: {count}" for name, count in done.items()))
    return done


@task(atomic=False)
def answer(cqt: Any) -> str:
    """Answer `cq_doctor`: which process ran this."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@task(atomic=False)
def call_command_task(cqt: Any, command: str, *args: Any, **options: Any) -> None:
    """
    Run a management command that CQ["COMMANDS"] lists; what it prints becomes log lines.

    Dangerous by nature, so nothing is allowed by default, and neither the admin nor a
    REST view starts it: schedule it in code.
    """
    allowed = conf.current().commands
    if command not in allowed:
        raise CommandNotAllowed(
            f"call_command_task was to run {command!r}. CQ['COMMANDS'] allows "
            f"{', '.join(map(repr, allowed)) or 'no command'}. Add it there if any code that "
            "can start tasks may run it.",
            command=command,
        )
    output = _LogLines(cqt)
    call_command(command, *args, **{**options, "stdout": output, "stderr": output})
    output.close()


class _LogLines(io.TextIOBase):
    """A text file whose lines go to the task's log as they are completed."""

    def __init__(self, cqt: Any) -> None:
        self._cqt = cqt
        self._rest = ""

    def write(self, text: str, /) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._cqt.log(line)
        return len(text)

    def close(self) -> None:
        """Log what is left without a newline at its end."""
        if self._rest:
            self._cqt.log(self._rest)
            self._rest = ""


@task(atomic=False)
def memory_details(cqt: Any) -> dict[str, Any]:
    """Say how much memory the worker process uses, and for which kinds of objects."""
    kinds = Counter(type(item).__qualname__ for item in gc.get_objects())
    return {
        "pid": os.getpid(),
        "rss_bytes": _resident_bytes(),
        "peak_rss_bytes": peak_bytes(),
        "objects": sum(kinds.values()),
        "types": dict(kinds.most_common(TYPES_SHOWN)),
    }


def _resident_bytes() -> int | None:
    """The resident size now, where the system tells it in a file (Linux)."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@task(atomic=False)
def call_errorback(cqt: Any, id: str, error: str | None, entry: dict[str, Any]) -> None:
    """Call one errorback of a task that ended badly; enqueued by the engine, once each."""
    errorbacks.call_errorback(cqt, Task.objects.get(id=id), error, entry)


# --- the tree of cq_load_test -------------------------------------------------------------------


@task
async def load_trunk(cqt: Any, number: int, mode: str = "") -> Any:
    """One tree: async, sync, atomic and retried leaves, and a chain whose result it takes."""
    for leaf in (load_async, load_async, load_sync, load_atomic, load_flaky):
        cqt.subtask(leaf, number)
    if mode:
        cqt.subtask({"fail": load_failure, "lost": load_lost}[mode])
    cqt.log(f"trunk {number}")
    return cqt.subtask(load_async, number).chain(load_double)


@task
async def load_async(cqt: Any, number: int) -> int:
    """An async leaf, and the first link of the chain."""
    return number + 1


@task(atomic=False)
def load_sync(cqt: Any, number: int) -> int:
    """A leaf in a thread."""
    return number + 1


@task
def load_atomic(cqt: Any, number: int) -> int:
    """A leaf in a transaction."""
    return number + 1


@task(retries=1, backoff=0)
async def load_flaky(cqt: Any, number: int) -> int:
    """A leaf that succeeds at its second attempt."""
    if cqt.attempt == 1:
        raise ConnectionError("The first attempt fails on purpose.")
    return number + 1


@task
async def load_double(cqt: Any, number: int) -> int:
    """The second link, which takes the result of the first."""
    return 2 * number


@task
async def load_failure(cqt: Any) -> None:
    """A leaf that makes its trunk Incomplete."""
    raise ValueError("This leaf fails on purpose.")


@task(atomic=False, pool="process", at_most_once=True)
def load_lost(cqt: Any) -> None:
    """Die like a process that is killed; only the child of the worker dies."""
    os._exit(9)

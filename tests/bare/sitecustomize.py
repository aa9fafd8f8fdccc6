"""
A system without fork and POSIX signals, for cq alone: `PYTHONPATH=tests/bare python …`.

Python imports this before anything else. What the modules of cq then import as os, signal or
asyncio lacks all that Windows lacks, os.name is "nt", and modules of POSIX cannot be imported;
everybody else, the standard library included, sees what is really there. It reaches the
children of a worker by the same variable. No replacement for a run on Windows, but whatever
cq asks for on the way there fails here too.
"""

from __future__ import annotations

import asyncio.unix_events
import builtins
import os
import signal
import sys
from types import ModuleType
from typing import Any

ABSENT_MODULES = {
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"),
}
ABSENT_FROM_OS = {
    *("chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid"),
    *("getpgrp", "getuid", "killpg", "mkfifo", "nice", "pidfd_open", "posix_spawn"),
    *("register_at_fork", "sched_getaffinity", "setpgid", "setsid", "sysconf", "uname", "wait"),
}
SIGNALS_OF_WINDOWS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
ABSENT_FROM_SIGNAL = {
    *("alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer"),
    *("siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"),
}


def without(module: ModuleType, absent: set[str], **other: Any) -> ModuleType:
    """A copy of a module that lacks some of its names."""
    bare = ModuleType(module.__name__, module.__doc__)
    vars(bare).update({name: thing for name, thing in vars(module).items() if name not in absent})
    vars(bare).update(other)
    return bare


BARE = {
    "os": without(os, ABSENT_FROM_OS, name="nt"),
    "signal": without(
        signal,
        ABSENT_FROM_SIGNAL
        | {name for name in dir(signal) if name.startswith("SIG") and name[3] != "_"}
        - SIGNALS_OF_WINDOWS,
    ),
}
really_import = builtins.__import__


def is_of_cq(importer: Any) -> bool:
    return str((importer or {}).get("__name__", "")).partition(".")[0] == "cq"


def import_for(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    """Import something, or its bare form for cq."""
    if not level and is_of_cq(globals):
        if name in ABSENT_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in BARE:
            return BARE[name]
    return really_import(name, globals, locals, fromlist, level)


def no_handler(self: Any, number: int, callback: Any, *arguments: Any) -> None:
    """What every loop of Windows says."""
    if is_of_cq(sys._getframe(1).f_globals):
        raise NotImplementedError
    really_add(self, number, callback, *arguments)


really_add = asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = no_handler  # type: ignore[method-assign]
builtins.__import__ = import_for

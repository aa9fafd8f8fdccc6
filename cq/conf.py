"""
The settings of cq: one dict named CQ, read here and nowhere else.

`current()` gives a frozen, typed view with every default filled in; it follows
`override_settings`. The flat names of 2019 (CQ_SERIAL, CQ_CHANNEL_LAYER, CQ_SCHEDULER,
CQ_PREFIX) are aliases. Seconds are floats, sizes are bytes.
"""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, get_args, get_type_hints

from django.conf import settings
from django.core.signals import setting_changed

from cq.definition.options import check_queue
from cq.errors import InvalidOption, InvalidSettings

DAY = 86400


def _default_threads() -> int:
    return min(8, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every key of CQ in lower case, with its default."""

    channel_layer: str | None = None
    """Alias of the dedicated task layer; by default "cq" where CHANNEL_LAYERS has it."""
    browser_layer: str | None = None
    """Alias of the layer that carries live events; by default "default" if it exists."""
    serial: bool = False
    """Run every delay() in place, without rows or workers."""
    embedded: bool | None = None
    """Host a worker in the web process; by default when DEBUG is on."""
    scheduler: bool = True
    """Let workers fire repeating tasks."""
    queues: tuple[str, ...] | None = None
    """Queues a worker takes, best first; None is every queue."""
    slots: int = 100
    """Async tasks that one worker process runs at once."""
    threads: int = 0
    """Sync tasks that one worker process runs at once; 0 is min(8, CPUs + 4)."""
    processes: int = 2
    """Tasks with pool="process" that one worker process runs at once."""
    lanes: int = 4
    """Database threads that async tasks share."""
    lease: float = 30.0
    """Seconds without a heartbeat after which a worker counts as dead."""
    heartbeat: float = 5.0
    """Seconds between two heartbeats."""
    poll: float = 2.0
    """Seconds between two looks at the table when no bell rings."""
    grace: float = 30.0
    """Seconds a stopping worker waits for running tasks."""
    log_flush: float = 0.1
    """Seconds that log lines are gathered before they are recorded."""
    loop_stall: float = 1.0
    """Seconds a blocked event loop is tolerated before its stack is logged."""
    loop_stall_max: float = 120.0
    """Seconds of a blocked event loop after which the worker stops its heartbeat."""
    max_args_bytes: int = 256 * 1024
    """Size of a task's arguments as JSON."""
    max_result_bytes: int = 1024 * 1024
    """Size of a task's result as JSON."""
    max_line_bytes: int = 8 * 1024
    """Size of one log line."""
    max_lines: int = 100_000
    """Log lines that one attempt may record."""
    max_error_bytes: int = 16 * 1024
    """Size of a stored error with its traceback."""
    max_children: int = 10_000
    """Subtasks of one task."""
    max_depth: int = 32
    """Levels of a tree."""
    max_crashes: int = 3
    """Worker deaths after which a task counts as Lost."""
    max_releases: int = 20
    """Times a stopping worker may hand one task back."""
    max_leaks: int = 4
    """Threads stuck past a time limit after which a worker replaces itself."""
    success_ttl: int = 7 * DAY
    """Seconds a successful tree is kept."""
    failure_ttl: int = 30 * DAY
    """Seconds any other ended tree is kept."""
    watch_ttl: int = DAY
    """Seconds a watch token is valid."""
    timeout: float | None = None
    """Time limit of tasks that name none."""
    unroutable_ttl: float = DAY
    """Seconds after which a task that no worker registers fails."""
    task_modules: tuple[str, ...] = ()
    """Modules with task functions beside the tasks.py of installed apps."""
    commands: tuple[str, ...] = ()
    """Management commands that call_command_task may run."""
    site_url: str | None = None
    """Address of the site, for the links that commands print."""
    prefix: str = "cq"
    """Prefix of the keys that cq's own layer keeps in Redis."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the CQ setting: kind is "unknown", "type", "value" or "alias"."""

    key: str
    kind: str
    message: str
    hint: str


_FIELDS = {field.name.upper(): field for field in fields(Settings)}
_TYPES = get_type_hints(Settings)
_ALIASES = {
    "CQ_SERIAL": "SERIAL",
    "CQ_CHANNEL_LAYER": "CHANNEL_LAYER",
    "CQ_SCHEDULER": "SCHEDULER",
    "CQ_PREFIX": "PREFIX",
}
_REMOVED = {
    "CQ_BACKEND": "Tasks travel on a channel layer: name it in CQ['CHANNEL_LAYER']",
}
_POSITIVE = {
    *("slots", "lanes", "lease", "heartbeat", "poll", "log_flush", "loop_stall", "loop_stall_max"),
    *("timeout", "max_args_bytes", "max_result_bytes", "max_line_bytes", "max_error_bytes"),
    # A worker without children could never run a suspect again; without leaks it would not start.
    *("max_depth", "max_crashes", "processes", "max_leaks"),
}
_current: Settings | None = None


def current() -> Settings:
    """The settings in force; raises InvalidSettings for a key that cannot be used."""
    global _current
    if _current is None:
        _current = _read()
    return _current


def keys() -> dict[str, Any]:
    """Every key of CQ with its default, for the reference page and its test."""
    return {
        key: field.default if field.default is not MISSING else None
        for key, field in _FIELDS.items()
    }


def raw() -> Mapping[str, Any]:
    """The CQ dict as the project wrote it."""
    value: Mapping[str, Any] = getattr(settings, "CQ", {})
    return value


def problems(value: Mapping[str, Any] | None = None) -> list[Problem]:
    """What is wrong with the setting, each with a hint; an empty list when all is well."""
    given = raw() if value is None else value
    if not isinstance(given, Mapping):
        return [Problem("CQ", "type", f"CQ is {given!r}, not a dict.", "Write CQ = {…}.")]
    found = [problem for key in given for problem in _problems_of(key, given[key])]
    return found if value is not None else found + _problems_of_flat_names(given)


def _problems_of_flat_names(given: Mapping[str, Any]) -> list[Problem]:
    found = []
    for alias, key in _ALIASES.items():
        if not hasattr(settings, alias):
            continue
        flat = getattr(settings, alias)
        if key in given and flat != given[key]:
            message = f"{alias} is {flat!r} while CQ[{key!r}] is {given[key]!r}."
            hint = f"Remove {alias}; it is the historic name of CQ[{key!r}]."
            found.append(Problem(key, "alias", message, hint))
        elif key not in given:
            found += _problems_of(key, flat, alias)
    for name, instead in _REMOVED.items():
        if hasattr(settings, name):
            message = f"{name} is {getattr(settings, name)!r}, but cq has no such setting any more."
            found.append(Problem(name, "unknown", message, f"Remove it. {instead}."))
    return found


def _problems_of(key: object, value: object, spelled: str | None = None) -> list[Problem]:
    if not isinstance(key, str) or key not in _FIELDS:
        close = difflib.get_close_matches(str(key).upper(), _FIELDS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "See docs/reference/settings.md."
        return [Problem(str(key), "unknown", f"CQ[{key!r}] is not a setting of cq.", hint)]
    name, expected = _FIELDS[key].name, _TYPES[_FIELDS[key].name]
    said = f"{spelled or f'CQ[{key!r}]'} is {value!r}, which is not"
    hint = f"Its default is {_FIELDS[key].default!r}."
    if not _fits(value, expected):
        return [Problem(key, "type", f"{said} {_spell(expected)}.", hint)]
    if name == "queues" and value is not None:
        return _problems_of_queues(key, value)
    if name == "site_url" and value and not str(value).startswith(("http://", "https://")):
        hint = 'Write "SITE_URL": "https://www.example.org".'
        return [Problem(key, "value", f"{said} an address with http:// or https://.", hint)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            return [Problem(key, "value", f"{said} finite.", hint)]
        if value < 0 or (value == 0 and name in _POSITIVE):
            least = "above 0" if name in _POSITIVE else "0 or more"
            return [Problem(key, "value", f"{said} {least}.", hint)]
    return []


def _problems_of_queues(key: str, queues: Any) -> list[Problem]:
    if not queues:
        hint = f"Leave {key!r} out for every queue."
        return [Problem(key, "value", f"CQ[{key!r}] is {queues!r}, which names no queue.", hint)]
    found = []
    for queue in queues:
        try:
            check_queue(queue)
        except InvalidOption as problem:
            _, _, hint = str(problem).partition("name. ")
            message = f"CQ[{key!r}] has {queue!r:.100}, which is no queue name."
            found.append(Problem(key, "value", message, hint))
    return found


def _fits(value: object, expected: Any) -> bool:
    if isinstance(expected, UnionType):
        return any(_fits(value, option) for option in get_args(expected))
    if expected is type(None):
        return value is None
    if expected is bool:
        return isinstance(value, bool)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if expected is str:
        return isinstance(value, str)
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _spell(expected: Any) -> str:
    if isinstance(expected, UnionType):
        return " or ".join(_spell(option) for option in get_args(expected))
    words = {type(None): "None", bool: "True or False", float: "a number", int: "a whole number"}
    return words.get(expected, "a string" if expected is str else "a list of strings")


def _read() -> Settings:
    given = raw()
    for problem in problems():
        # Two names for one key are a check's business; the one in CQ counts.
        if problem.kind != "alias":
            raise InvalidSettings(f"{problem.message} {problem.hint}", key=problem.key)
    values: dict[str, Any] = {
        key: getattr(settings, alias) for alias, key in _ALIASES.items() if hasattr(settings, alias)
    }
    values.update(given)
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    values.setdefault("CHANNEL_LAYER", "cq" if "cq" in layers else None)
    values.setdefault("BROWSER_LAYER", "default" if "default" in layers else None)
    values.setdefault("EMBEDDED", None)
    if values["EMBEDDED"] is None:
        values["EMBEDDED"] = bool(settings.DEBUG)
    if not values.get("THREADS"):
        values["THREADS"] = _default_threads()
    for key in ("QUEUES", "TASK_MODULES", "COMMANDS"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    return Settings(**{key.lower(): value for key, value in values.items()})


def _forget(*, setting: str, **_: object) -> None:
    global _current
    if setting in ("CQ", "CHANNEL_LAYERS", "DEBUG", *_ALIASES, *_REMOVED):
        _current = None


setting_changed.connect(_forget)

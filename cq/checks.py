"""
System checks: wrong configuration is named at start-up, with the line that mends it.

`manage.py check` runs those that only read configuration; `check --deploy` also imports
the ASGI application. None opens a socket, reads a row or starts a thread. Every id is in
`CATALOGUE`, which docs/reference/checks.md repeats.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from channels.layers import BaseChannelLayer, InMemoryChannelLayer, channel_layers
from channels.routing import ProtocolTypeRouter, URLRouter, get_default_application
from channels.security.websocket import AllowedHostsOriginValidator
from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from cq import conf
from cq.errors import InvalidSettings
from cq.transport.messages import DEFAULT_QUEUE, channel_name

CATALOGUE = {
    "cq.E001": "CQ has a key that cq does not know.",
    "cq.E002": "A setting has the wrong type.",
    "cq.E003": "A historic CQ_… setting and the CQ dict disagree.",
    "cq.E004": "A channel layer that CQ names is missing or cannot be made.",
    "cq.E007": "A setting has an impossible value.",
    "cq.E008": "LEASE is shorter than three heartbeats.",
    "cq.E009": "The database of the tasks has AUTOCOMMIT off.",
    "cq.E011": "TASK_MODULES names a module that is not there.",
    "cq.W001": "An in-memory layer while the workers are processes of their own.",
    "cq.W003": "No WebSocket route of cq is served.",
    "cq.W004": "USE_TZ is off.",
    "cq.W005": "Watch tokens are valid for more than seven days.",
    "cq.W007": "Messages of the task layer expire in less than a minute.",
    "cq.W008": "The Redis connection of a layer times out while it waits for a message.",
    "cq.W009": "A layer keeps fewer messages than the stock one.",
    "cq.W012": "SQLite lacks the options that several writers need.",
    "cq.W013": "The worker is embedded, but runserver is not the one that hosts it.",
    "cq.W014": "The sockets of cq trust every host name.",
    "cq.W015": "The task layer is a pub/sub layer, which keeps no message.",
}

Messages = list[CheckMessage]
Apps = Sequence[AppConfig] | None

_KINDS = {"unknown": "cq.E001", "type": "cq.E002", "alias": "cq.E003", "value": "cq.E007"}
_TASK_LAYER = '{"BACKEND": "cq.layers.RedisLayer", "CONFIG": {"hosts": ["redis://…"]}}'
_MIN_EXPIRY = 60
_MIN_CAPACITY = 100
_SQLITE_TIMEOUT = 20
_WEEK = 7 * 86400
_WRAPPERS = ("application", "inner", "app")


@register("cq")
def check_keys(app_configs: Apps = None, **options: Any) -> Messages:
    """Report keys of CQ that cannot be used."""
    return [
        Error(problem.message, hint=problem.hint, id=_KINDS[problem.kind])
        for problem in conf.problems()
    ]


@register("cq")
def check_times(app_configs: Apps = None, **options: Any) -> Messages:
    """Report durations that contradict each other or promise too much."""
    settings = _settings()
    if settings is None:
        return []
    found: Messages = []
    if settings.lease < 3 * settings.heartbeat:
        found.append(
            Error(
                f"CQ['LEASE'] is {settings.lease:g} s, less than three times CQ['HEARTBEAT'] "
                f"({settings.heartbeat:g} s): one late heartbeat, and a living worker looks dead.",
                hint=f'Write CQ = {{"LEASE": {3 * settings.heartbeat:g}}}, or more.',
                id="cq.E008",
            )
        )
    if settings.watch_ttl > _WEEK:
        found.append(
            Warning(
                f"CQ['WATCH_TTL'] is {settings.watch_ttl} s: whoever finds a link can watch for "
                "more than seven days.",
                hint='Write CQ = {"WATCH_TTL": 86400}; pages that stay open renew their token.',
                id="cq.W005",
            )
        )
    return found


@register("cq")
def check_task_modules(app_configs: Apps = None, **options: Any) -> Messages:
    """Report modules with tasks that are not there; one that fails inside has raised before."""
    settings = _settings()
    return [
        Error(
            f"CQ['TASK_MODULES'] has {name!r}, and there is no such module: its tasks are not "
            "registered.",
            hint="Write the dotted path of a module that can be imported, such as "
            "'shop.billing.jobs'.",
            id="cq.E011",
        )
        for name in (settings.task_modules if settings else ())
        if not is_there(name)
    ]


def is_there(module: str) -> bool:
    """Whether a module of that name can be found; its parents are imported to look."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError as missing:
        if missing.name and f"{module}.".startswith(f"{missing.name}."):
            return False
        raise
    except ValueError:  # a text that names no module at all
        return False


@register("cq")
def check_layers(app_configs: Apps = None, **options: Any) -> Messages:
    """Report channel layers that are missing, or that lose what cq sends."""
    settings = _settings()
    if settings is None:
        return []
    found: Messages = []
    wanted = {"CHANNEL_LAYER": settings.channel_layer, "BROWSER_LAYER": settings.browser_layer}
    for alias in dict.fromkeys(wanted.values()):
        if alias is None:
            continue
        key = next(key for key in wanted if wanted[key] == alias)
        layer = _make_layer(alias)
        is_task_layer = alias == settings.channel_layer
        if isinstance(layer, BaseChannelLayer):
            found += _layer_findings(alias, layer, is_task_layer, bool(settings.embedded))
        elif not isinstance(layer, str):
            found += _keeps_nothing(alias, layer) if is_task_layer else ()
        else:
            found.append(
                Error(
                    f"CQ[{key!r}] names the channel layer {alias!r}: {layer}",
                    hint=f'Write CHANNEL_LAYERS = {{"{alias}": {_TASK_LAYER}}}, or name another.',
                    id="cq.E004",
                )
            )
    return found


def _make_layer(alias: str) -> object:
    """Make a layer that nobody uses, or return in words what is in the way."""
    if alias not in channel_layers:
        known = ", ".join(map(repr, channel_layers.configs)) or "no layer"
        return f"CHANNEL_LAYERS has {known}."
    try:
        layer = channel_layers.make_backend(alias)
        if isinstance(layer, BaseChannelLayer) and hasattr(layer, "create_pool"):
            layer.create_pool(0)  # reads the address of a Redis, and opens nothing
    except Exception as exc:  # noqa: BLE001 - the constructor of any project's layer runs here
        return f"making it raised {type(exc).__name__}: {str(exc).rstrip('.')}."
    return layer


def _keeps_nothing(alias: str, layer: object) -> Iterator[CheckMessage]:
    if ".pubsub" in type(layer).__module__:
        yield Warning(
            f"CHANNEL_LAYERS[{alias!r}] is a pub/sub layer: it delivers to open sockets alone, and "
            "keeps no message for a worker; tasks start at the next poll.",
            hint=f'Write CHANNEL_LAYERS = {{"{alias}": {_TASK_LAYER}}}, and name this one in '
            'CQ = {"BROWSER_LAYER": …}.',
            id="cq.W015",
        )


def _layer_findings(
    alias: str, layer: BaseChannelLayer, is_task_layer: bool, embedded: bool
) -> Iterator[CheckMessage]:
    place = f"CHANNEL_LAYERS[{alias!r}]"
    if isinstance(layer, InMemoryChannelLayer) and not embedded:
        loss = "tasks start at the next poll" if is_task_layer else "pages poll for what is new"
        yield Warning(
            f"{place} lives in the memory of one process, and workers are other processes: {loss}.",
            hint=f'Write CHANNEL_LAYERS = {{"{alias}": {_TASK_LAYER}}}, or, with one process in '
            'all, CQ = {"EMBEDDED": True}.',
            id="cq.W001",
        )
    expiry = getattr(layer, "expiry", _MIN_EXPIRY)
    if is_task_layer and expiry < _MIN_EXPIRY:
        yield Warning(
            f"{place} drops messages after {expiry} s: a backlog older than that is found only "
            "by polling.",
            hint='Write "CONFIG": {"expiry": 86400, …}, or use cq.layers.RedisLayer.',
            id="cq.W007",
        )
    timeout, wait = _socket_timeout(layer), getattr(layer, "brpop_timeout", 0)
    if timeout is not None and timeout <= wait:
        yield Warning(
            f"{place} gives up on Redis after {timeout:g} s, and waits {wait:g} s for a message: "
            "every idle receive() fails.",
            hint='Write "CONFIG": {"hosts": [{"address": "redis://…", "socket_timeout": 20}]}, or '
            "use cq.layers.RedisLayer.",
            id="cq.W008",
        )
    capacity = layer.get_capacity(channel_name(DEFAULT_QUEUE))
    if capacity < _MIN_CAPACITY:
        yield Warning(
            f"{place} keeps {capacity} messages a channel: what exceeds them is dropped.",
            hint='Write "CONFIG": {"capacity": 100000, …}, or use cq.layers.RedisLayer.',
            id="cq.W009",
        )


def _socket_timeout(layer: BaseChannelLayer) -> float | None:
    """Return the time limit on one answer of Redis, asked of a connection never opened."""
    try:
        connection = layer.create_pool(0).make_connection()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a layer without Redis, or one of another make
        return None
    timeout: float | None = getattr(connection, "socket_timeout", None)
    return timeout


@register("cq")
def check_database(app_configs: Apps = None, **options: Any) -> Messages:
    """Report a database of tasks on which claims or times cannot be trusted."""
    alias = router.db_for_write(apps.get_model("cq", "Task"))
    connection = connections[alias]
    found: Messages = []
    if not connection.settings_dict["AUTOCOMMIT"]:
        found.append(
            Error(
                f"DATABASES[{alias!r}] has AUTOCOMMIT off: no claim and no heartbeat would commit.",
                hint=f"Remove DATABASES[{alias!r}]['AUTOCOMMIT'] = False.",
                id="cq.E009",
            )
        )
    if connection.timezone is None:
        found.append(
            Warning(
                "USE_TZ is off: times in naive local time are ambiguous one hour a year, and "
                "delayed and repeating tasks may fire an hour off.",
                hint="Write USE_TZ = True.",
                id="cq.W004",
            )
        )
    if connection.vendor == "sqlite" and (missing := _missing_options(connection)):
        found.append(
            Warning(
                f"DATABASES[{alias!r}] is SQLite without {' and '.join(missing)}: a second writer "
                'fails with "database is locked" instead of waiting.',
                hint=f'Write "OPTIONS": {{{", ".join(missing.values())}}}.',
                id="cq.W012",
            )
        )
    return found


def _missing_options(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Return what the OPTIONS of a SQLite file lack, each with the entry to add."""
    settings = connection.settings_dict
    if ":memory:" in str(settings["NAME"]) or "mode=memory" in str(settings["NAME"]):
        return {}
    options = settings["OPTIONS"]
    missing = {}
    if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        missing["immediate transactions"] = '"transaction_mode": "IMMEDIATE"'
    if "wal" not in str(options.get("init_command", "")).lower():
        missing["a write-ahead log"] = '"init_command": "PRAGMA journal_mode=WAL;"'
    if options.get("timeout", 0) < _SQLITE_TIMEOUT:
        missing[f"a timeout of {_SQLITE_TIMEOUT} s"] = f'"timeout": {_SQLITE_TIMEOUT}'
    return missing


@register("cq")
def check_embedded(app_configs: Apps = None, **options: Any) -> Messages:
    """Report an embedded worker that nothing would start."""
    settings = _settings()
    if settings is None or not settings.embedded or apps.is_installed("daphne"):
        return []
    return [
        Warning(
            "CQ['EMBEDDED'] is on (by default it follows DEBUG), but \"daphne\" is not in "
            "INSTALLED_APPS: Django's own runserver hosts no worker, and tasks stay Queued.",
            hint='Write INSTALLED_APPS = ["daphne", …], first in the list; or write CQ = '
            '{"EMBEDDED": False} and start manage.py cq_runworker beside the server.',
            id="cq.W013",
        )
    ]


@register("cq", deploy=True)
def check_sockets(app_configs: Apps = None, **options: Any) -> Messages:
    """Report live views that cannot connect, or that anybody's page can."""
    found: Messages = []
    try:
        problem = _missing_route(get_default_application())
    except Exception as exc:  # noqa: BLE001 - the project's own asgi.py is imported here
        problem = f"ASGI_APPLICATION cannot be used: {type(exc).__name__}: {exc}"
    if problem:
        found.append(
            Warning(
                f"{problem.rstrip('.')}. Pages that watch tasks will poll.",
                hint='Write ASGI_APPLICATION = "cq.asgi.application", or add '
                "cq.routing.websocket_urlpatterns to the websocket URLRouter of yours.",
                id="cq.W003",
            )
        )
    if "*" in AllowedHostsOriginValidator(URLRouter([])).allowed_origins:
        found.append(
            Warning(
                "ALLOWED_HOSTS has '*': whoever points a host name of his own at this server can "
                "open the sockets of cq from his pages.",
                hint='Write ALLOWED_HOSTS = ["www.example.org"].',
                id="cq.W014",
            )
        )
    return found


def _missing_route(application: object) -> str | None:
    """Say why the application serves no socket of cq; None if it does, or hides its inside."""
    inside = _unwrap(application)
    if not isinstance(inside, ProtocolTypeRouter):
        is_plain = type(inside).__module__.startswith("django.")
        return "ASGI_APPLICATION serves HTTP alone" if is_plain else None
    sockets = inside.application_mapping.get("websocket")
    if sockets is None:
        return 'The ProtocolTypeRouter of ASGI_APPLICATION has no "websocket"'
    routed = _unwrap(sockets)
    if isinstance(routed, URLRouter) and not any(map(_is_ours, _consumers(routed.routes))):
        return 'The "websocket" routes of ASGI_APPLICATION have none of cq'
    return None


def _unwrap(application: object) -> object:
    """Follow middleware inwards to a router, or to the first thing that hides its inside."""
    for _ in range(20):
        if isinstance(application, ProtocolTypeRouter | URLRouter):
            break
        names = (name for name in _WRAPPERS if hasattr(application, name))
        name = next(names, None)
        if name is None:
            break
        application = getattr(application, name)
    return application


def _consumers(routes: Sequence[Any]) -> Iterator[object]:
    """Yield what the routes lead to, nested routers opened."""
    for route in routes:
        inside = _unwrap(route.callback)
        if isinstance(inside, URLRouter):
            yield from _consumers(inside.routes)
        else:
            yield inside


def _is_ours(consumer: object) -> bool:
    kind = getattr(consumer, "consumer_class", consumer)
    return any(base.__module__.startswith("cq.") for base in getattr(kind, "__mro__", ()))


def _settings() -> conf.Settings | None:
    """Return the settings in force, or None where `check_keys` has said what is wrong."""
    try:
        return conf.current()
    except InvalidSettings:
        return None

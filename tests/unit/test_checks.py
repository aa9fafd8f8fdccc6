"""System checks: each speaks about the bad setting, names the mending line, else is silent."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channels.layers import BaseChannelLayer
from django.core import checks as django_checks
from django.db import connections

from cq import checks

Check = Callable[[], checks.Messages]
ROOT = Path(__file__).parents[2]
MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
REDIS = "channels_redis.core.RedisChannelLayer"
SQLITE = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;",
}


def layers(**config: Any) -> dict[str, Any]:
    """A task layer of the stock kind whose receivers do not time out, with changes."""
    hosts = [{"address": "redis://127.0.0.1:1", "socket_timeout": 20}]
    return {"cq": {"BACKEND": REDIS, "CONFIG": {"hosts": hosts} | config}}


def only(messages: checks.Messages, id: str) -> django_checks.CheckMessage:
    assert [message.id for message in messages] == [id]
    message = messages[0]
    assert message.id in checks.CATALOGUE
    assert message.hint
    assert (message.level == django_checks.ERROR) == ("E" in id[3:])
    return message


class FullLayer(BaseChannelLayer):
    """A layer of somebody else's that cannot be made."""

    def __init__(self) -> None:
        raise OSError("no such device")


@pytest.fixture(autouse=True)
def fine(settings: Any) -> None:
    """A project about which every check is silent."""
    settings.CQ = {"EMBEDDED": False}
    settings.CHANNEL_LAYERS = layers()


@pytest.mark.parametrize(
    "check",
    [
        checks.check_keys,
        checks.check_times,
        checks.check_layers,
        checks.check_embedded,
    ],
)
def test_silence_about_a_project_that_is_fine(check: Check) -> None:
    assert check() == []


def test_all_are_registered_under_the_tag() -> None:
    registered = {check.__name__ for check in django_checks.registry.registry.get_checks(True)}
    ours = {name for name in vars(checks) if name.startswith("check_")}
    assert ours <= registered
    always = {check.__name__ for check in django_checks.registry.registry.get_checks(False)}
    assert ours - always == {"check_sockets"}
    assert django_checks.tag_exists("cq")


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cq", "id", "words", "hint"),
    [
        ({"SLOT": 5}, "cq.E001", "CQ['SLOT'] is not a setting of cq.", "'SLOTS'"),
        ({"slots": 5}, "cq.E001", "CQ['slots']", "'SLOTS'"),
        ({"XYZZY": 5}, "cq.E001", "CQ['XYZZY']", "settings.md"),
        ({"SLOTS": "5"}, "cq.E002", "CQ['SLOTS'] is '5', which is not a whole number.", "100"),
        ({"SLOTS": True}, "cq.E002", "CQ['SLOTS'] is True", "100"),
        ({"QUEUES": "mail"}, "cq.E002", "CQ['QUEUES'] is 'mail'", "None"),
        ({"POLL": 0}, "cq.E007", "CQ['POLL'] is 0, which is not above 0.", "2.0"),
        ([], "cq.E002", "CQ is [], not a dict.", "CQ = {"),
    ],
)
def test_keys(settings: Any, cq: Any, id: str, words: str, hint: str) -> None:
    settings.CQ = cq
    message = only(checks.check_keys(), id)
    assert words in message.msg
    assert hint in str(message.hint)
    assert checks.check_times() == checks.check_layers() == checks.check_embedded() == []


def test_an_alias_that_contradicts_the_dict(settings: Any) -> None:
    settings.CQ_SERIAL = True
    assert checks.check_keys() == []
    settings.CQ = {"SERIAL": True}
    assert checks.check_keys() == []
    settings.CQ = {"SERIAL": False}
    message = only(checks.check_keys(), "cq.E003")
    assert "CQ_SERIAL is True while CQ['SERIAL'] is False" in message.msg
    assert "Remove CQ_SERIAL" in str(message.hint)


# --- times ----------------------------------------------------------------------------------------


def test_a_lease_of_less_than_three_heartbeats(settings: Any) -> None:
    settings.CQ = {"LEASE": 14.9, "HEARTBEAT": 5}
    message = only(checks.check_times(), "cq.E008")
    assert 'CQ = {"LEASE": 15}' in str(message.hint)
    settings.CQ = {"LEASE": 15, "HEARTBEAT": 5}
    assert checks.check_times() == []


def test_watch_tokens_that_live_too_long(settings: Any) -> None:
    settings.CQ = {"WATCH_TTL": 7 * 86400 + 1}
    only(checks.check_times(), "cq.W005")
    settings.CQ = {"WATCH_TTL": 7 * 86400}
    assert checks.check_times() == []


# --- modules with tasks ---------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["nowhere", "nowhere.jobs", "cq.nowhere", "cq.conf.nowhere", ""])
def test_a_module_with_tasks_that_is_not_there(settings: Any, module: str) -> None:
    settings.CQ = {"EMBEDDED": False, "TASK_MODULES": ["cq.tasks", module]}
    message = only(checks.check_task_modules(), "cq.E011")
    assert message.msg.startswith(f"CQ['TASK_MODULES'] has {module!r}, and there is no such")


def test_a_parent_that_lacks_a_module_of_its_own_is_no_missing_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("import broken_elsewhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="broken_elsewhere"):
        checks.is_there("broken.jobs")


# --- layers ---------------------------------------------------------------------------------------


def test_a_layer_that_is_not_configured(settings: Any) -> None:
    settings.CQ = {"CHANNEL_LAYER": "tasks", "EMBEDDED": False}
    message = only(checks.check_layers(), "cq.E004")
    assert message.msg == (
        "CQ['CHANNEL_LAYER'] names the channel layer 'tasks': CHANNEL_LAYERS has 'cq'."
    )
    assert 'CHANNEL_LAYERS = {"tasks": {"BACKEND": "cq.layers.RedisLayer"' in str(message.hint)
    settings.CQ = {"BROWSER_LAYER": "live", "EMBEDDED": False}
    assert "CQ['BROWSER_LAYER']" in only(checks.check_layers(), "cq.E004").msg


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"BACKEND": "no.such.Layer"}, "Cannot import BACKEND 'no.such.Layer'"),
        ({"BACKEND": REDIS, "CONFIG": {"hosts": "redis://"}}, "You must pass a list of Redis"),
        ({"BACKEND": REDIS, "CONFIG": {"host": []}}, "TypeError"),
        ({"BACKEND": REDIS, "CONFIG": {"hosts": ["localhost"]}}, "Redis URL must specify"),
        ({"BACKEND": f"{__name__}.FullLayer"}, "OSError: no such device"),
        ({}, "No BACKEND specified"),
    ],
)
def test_a_layer_that_cannot_be_made(settings: Any, layer: dict[str, Any], words: str) -> None:
    settings.CHANNEL_LAYERS = {"cq": layer}
    assert words in only(checks.check_layers(), "cq.E004").msg


def test_no_layer_at_all_is_fine(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    assert checks.check_layers() == []


def test_an_in_memory_layer_beside_workers_of_their_own(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"cq": MEMORY, "default": MEMORY}
    found = checks.check_layers()
    assert [message.id for message in found] == ["cq.W001", "cq.W001"]
    assert "tasks start at the next poll." in found[0].msg
    assert "pages poll for what is new." in found[1].msg
    assert '"EMBEDDED": True' in str(found[0].hint)
    settings.CQ = {"EMBEDDED": True}
    assert checks.check_layers() == []


def test_messages_of_tasks_that_expire_too_soon(settings: Any) -> None:
    settings.CHANNEL_LAYERS = layers(expiry=59)
    assert '"expiry": 86400' in str(only(checks.check_layers(), "cq.W007").hint)
    settings.CHANNEL_LAYERS = layers(expiry=60)
    assert checks.check_layers() == []
    settings.CHANNEL_LAYERS = {"default": layers(expiry=5)["cq"]}
    assert checks.check_layers() == []


@pytest.mark.parametrize(
    "host",
    [
        "redis://127.0.0.1:1",
        "redis://127.0.0.1:1?socket_timeout=5",
        ("127.0.0.1", 1),
        {"address": "redis://127.0.0.1:1", "socket_timeout": 0.5},
        {"master_name": "main", "sentinels": [("127.0.0.1", 1)]},
        "unix:///nowhere",
    ],
)
def test_a_connection_that_gives_up_while_it_waits(settings: Any, host: Any) -> None:
    settings.CHANNEL_LAYERS = layers(hosts=[host])
    message = only(checks.check_layers(), "cq.W008")
    assert '"socket_timeout": 20' in str(message.hint)
    assert "waits 5 s for a message" in message.msg


@pytest.mark.parametrize(
    "host",
    [
        "redis://127.0.0.1:1?socket_timeout=5.5",
        {"address": "redis://127.0.0.1:1", "socket_timeout": None},
        {"master_name": "main", "sentinels": [("127.0.0.1", 1)], "socket_timeout": 20},
    ],
)
def test_a_connection_that_waits_long_enough(settings: Any, host: Any) -> None:
    settings.CHANNEL_LAYERS = layers(hosts=[host])
    assert checks.check_layers() == []


def test_the_layer_of_cq_is_fine_as_it_comes(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {
        "cq": {
            "BACKEND": "cq.layers.RedisLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1"]},
        },
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1"]},
        },
    }
    assert checks.check_layers() == []


def test_a_pub_sub_layer_is_for_browsers_alone(settings: Any) -> None:
    pub_sub = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": ["redis://127.0.0.1:1"]},
    }
    settings.CHANNEL_LAYERS = {"cq": pub_sub}
    message = only(checks.check_layers(), "cq.W015")
    assert '"BACKEND": "cq.layers.RedisLayer"' in str(message.hint)
    settings.CHANNEL_LAYERS = {"default": pub_sub} | layers()
    assert checks.check_layers() == []


def test_a_layer_that_keeps_too_little(settings: Any) -> None:
    settings.CHANNEL_LAYERS = layers(capacity=99)
    message = only(checks.check_layers(), "cq.W009")
    assert "keeps 99 messages" in message.msg
    settings.CHANNEL_LAYERS = layers(channel_capacity={"cq-tasks*": 10})
    assert "keeps 10 messages" in only(checks.check_layers(), "cq.W009").msg
    settings.CHANNEL_LAYERS = layers(capacity=100)
    assert checks.check_layers() == []


# --- the database ---------------------------------------------------------------------------------


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change the configuration of the default database, without opening it."""
    connection = connections["default"]

    def configure(vendor: str, **changes: Any) -> None:
        monkeypatch.setattr(connection, "vendor", vendor)
        for key, value in changes.items():
            monkeypatch.setitem(connection.settings_dict, key, value)

    configure("sqlite", NAME="cq.sqlite3", OPTIONS=SQLITE)
    return configure


def test_silence_about_a_database_that_is_fine(database: Callable[..., None]) -> None:
    assert checks.check_database() == []


def test_autocommit_off(database: Callable[..., None]) -> None:
    database("postgresql", AUTOCOMMIT=False)
    assert "['AUTOCOMMIT']" in str(only(checks.check_database(), "cq.E009").hint)


def test_naive_times(database: Callable[..., None], settings: Any) -> None:
    settings.USE_TZ = False
    assert only(checks.check_database(), "cq.W004").hint == "Write USE_TZ = True."


@pytest.mark.parametrize(
    ("key", "value", "words", "line"),
    [
        ("transaction_mode", "DEFERRED", "immediate transactions", '"transaction_mode":'),
        ("transaction_mode", None, "immediate transactions", '"transaction_mode": "IMMEDIATE"'),
        ("init_command", "PRAGMA synchronous=1;", "a write-ahead log", "journal_mode=WAL"),
        ("timeout", 5, "a timeout of 20 s", '"timeout": 20'),
    ],
)
def test_sqlite_without_its_options(
    database: Callable[..., None], key: str, value: Any, words: str, line: str
) -> None:
    database("sqlite", OPTIONS=SQLITE | {key: value})
    message = only(checks.check_database(), "cq.W012")
    assert f"without {words}:" in message.msg
    assert line in str(message.hint)


def test_sqlite_without_any_option(database: Callable[..., None]) -> None:
    database("sqlite", OPTIONS={})
    assert only(checks.check_database(), "cq.W012").hint == (
        'Write "OPTIONS": {"transaction_mode": "IMMEDIATE", '
        '"init_command": "PRAGMA journal_mode=WAL;", "timeout": 20}.'
    )
    database("sqlite", NAME="file:x?mode=memory&cache=shared")
    assert checks.check_database() == []
    database("postgresql")
    assert checks.check_database() == []


# --- processes ------------------------------------------------------------------------------------


def test_an_embedded_worker_without_daphne(settings: Any) -> None:
    settings.CQ = {"EMBEDDED": True}
    assert checks.check_embedded() == []
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "daphne"]
    message = only(checks.check_embedded(), "cq.W013")
    assert 'INSTALLED_APPS = ["daphne", …]' in str(message.hint)
    settings.CQ = {"EMBEDDED": False}
    assert checks.check_embedded() == []


# --- what the checks must not do ------------------------------------------------------------------


def test_importing_the_checks_loads_no_model() -> None:
    script = (
        "import cq.checks, sys\n"
        "assert not [name for name in sys.modules if name.startswith('cq.models')], 'models'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr

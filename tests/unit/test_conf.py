"""The settings: read once, in one place, with every default and a sentence for what is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.test import override_settings

from cq import conf
from cq.errors import InvalidSettings


def test_defaults_are_filled_in() -> None:
    with override_settings(CQ={}, CHANNEL_LAYERS={}, DEBUG=False):
        settings = conf.current()
        assert (settings.slots, settings.lease, settings.success_ttl) == (100, 30.0, 604_800)
        assert (settings.channel_layer, settings.browser_layer) == (None, None)
        assert settings.embedded is False
        assert settings.threads >= 1


def test_layers_are_found_by_their_names() -> None:
    memory = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    with override_settings(CQ={}, CHANNEL_LAYERS={"cq": memory, "default": memory}):
        assert (conf.current().channel_layer, conf.current().browser_layer) == ("cq", "default")
    with override_settings(CQ={"CHANNEL_LAYER": "x"}, CHANNEL_LAYERS={"cq": memory}):
        assert conf.current().channel_layer == "x"


def test_the_view_follows_override_settings() -> None:
    before = conf.current()
    with override_settings(CQ={"SLOTS": 7, "QUEUES": ["a", "b"]}):
        assert conf.current().slots == 7
        assert conf.current().queues == ("a", "b")
        assert conf.current() is conf.current()
    assert conf.current() == before


def test_the_view_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        conf.current().slots = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SLOT": 5}, r"CQ\['SLOT'\] is not a setting of cq\. Did you mean 'SLOTS'\?"),
        ({"slots": 5}, r"CQ\['slots'\] is not a setting of cq\. Did you mean 'SLOTS'\?"),
        ({5: 5}, r"CQ\[5\] is not a setting of cq\."),
        ({"SLOTS": "5"}, r"CQ\['SLOTS'\] is '5', which is not a whole number\."),
        ({"SLOTS": True}, "which is not a whole number"),
        ({"SLOTS": 0}, r"which is not above 0\. Its default is 100\."),
        ({"LEASE": float("nan")}, "which is not finite"),
        ({"POLL": float("inf")}, "which is not finite"),
        ({"SUCCESS_TTL": -1}, "which is not 0 or more"),
        ({"TIMEOUT": 0}, "which is not above 0"),
        ({"SERIAL": "yes"}, "which is not True or False"),
        ({"QUEUES": "default"}, "which is not a list of strings or None"),
        ({"PROCESSES": 0}, "which is not above 0"),
        ({"MAX_LEAKS": 0}, "which is not above 0"),
        ({"QUEUES": []}, r"CQ\['QUEUES'\] is \[\], which names no queue\. Leave 'QUEUES' out"),
        ({"QUEUES": ["a", "b c"]}, r"has 'b c', which is no queue name\. Use 1 to 80 of the"),
        ({"SITE_URL": "shop.example"}, "which is not an address with http:// or https://"),
        ({"COMMANDS": [5]}, "which is not a list of strings"),
    ],
)
def test_what_cannot_be_used_is_said(given: Any, says: str) -> None:
    with override_settings(CQ=given), pytest.raises(InvalidSettings, match=says):
        conf.current()


@pytest.mark.parametrize("given", [None, [], "SERIAL"])
def test_the_setting_is_a_dict(given: Any) -> None:
    with override_settings(CQ=given), pytest.raises(InvalidSettings, match="not a dict"):
        conf.current()


@pytest.mark.parametrize(
    ("flat", "value", "key"),
    [
        ("CQ_SERIAL", True, "serial"),
        ("CQ_CHANNEL_LAYER", "long", "channel_layer"),
        ("CQ_SCHEDULER", False, "scheduler"),
        ("CQ_PREFIX", "shop", "prefix"),
    ],
)
def test_the_flat_names_of_2019_are_honoured(flat: str, value: Any, key: str) -> None:
    with override_settings(CQ={}, **{flat: value}):
        assert getattr(conf.current(), key) == value
        assert conf.problems() == []


def test_the_dict_goes_before_a_flat_name_and_a_check_says_so() -> None:
    with override_settings(CQ={"SERIAL": False}, CQ_SERIAL=True):
        assert conf.current().serial is False
        assert [problem.kind for problem in conf.problems()] == ["alias"]


def test_a_flat_name_is_read_with_the_same_care() -> None:
    with (
        override_settings(CQ={}, CQ_SERIAL="no"),
        pytest.raises(InvalidSettings, match="CQ_SERIAL is 'no', which is not True or False"),
    ):
        conf.current()


def test_a_setting_that_is_gone_says_what_to_write_instead() -> None:
    with (
        override_settings(CQ={}, CQ_BACKEND="redis"),
        pytest.raises(InvalidSettings, match=r"CQ_BACKEND is 'redis'.*name it in CQ\['CHANNEL"),
    ):
        conf.current()

"""The addresses that a terminal prints, and projects that serve no pages."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import clear_url_caches, set_urlconf

from cq.terminal.finding import overview


@pytest.fixture(autouse=True)
def fresh_urls() -> Any:
    """Nothing is remembered of the addresses of another project."""
    clear_url_caches()
    set_urlconf(None)
    yield
    clear_url_caches()


def test_the_address_is_the_path_or_that_of_the_site(settings: Any) -> None:
    path = overview()
    assert path.startswith("/")
    settings.CQ = {"SITE_URL": "https://shop.example.org"}
    assert overview() == f"https://shop.example.org{path}"


def test_a_project_without_the_pages_has_no_address(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.unit.terminal.no_urls"
    assert overview() == ""


def test_a_project_without_any_pages_has_none_either(settings: Any) -> None:
    del settings.ROOT_URLCONF
    assert overview() == ""

"""
Django settings of the test project: the suite, and the real processes it starts.

What enters is the environment: CQ_TEST_DB (postgres or sqlite) picks the database,
CQ_TEST_DATABASE_URL and CQ_TEST_REDIS_URL name running servers, CQ_TEST_LAYER picks the
channel layers (redis, stock, memory, none), CQ_TEST_SQLITE_TIMEOUT is how long SQLite waits
for its lock, and CQ_TEST_CQ overrides keys of the CQ dict (JSON). Importing this module opens
nothing: the suite fills in the address of its private PostgreSQL when a test first asks for
the database.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent

SQLITE_OPTIONS = {
    "timeout": float(os.environ.get("CQ_TEST_SQLITE_TIMEOUT", "20")),
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}


def database_from(url: str) -> dict[str, Any]:
    """Turn a postgresql:// or sqlite:/// address into one entry of DATABASES."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        name = unquote(parts.path[1:])  # sqlite:///relative, sqlite:////absolute
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": SQLITE_OPTIONS}
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError(
            f"The database address {url!r} has the scheme {parts.scheme!r}. "
            "Expected postgresql:// or sqlite:///. Correct CQ_TEST_DATABASE_URL."
        )
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "cq",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "127.0.0.1",
        "PORT": str(parts.port or 5432),
        # Workers prepare their statements (cq/models/sessions.py); this makes tests do so.
        "OPTIONS": {"prepare_threshold": 0} if os.environ.get("CQ_TEST_PREPARED") else {},
    }


def channel_layers_for(kind: str, redis_url: str) -> dict[str, Any]:
    """Name the layers `default` (browsers) and `cq` (tasks) for one of the supported set-ups."""
    memory = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    if kind == "none":
        return {}
    if kind == "memory":
        return {"default": memory, "cq": memory}
    hosts = {"hosts": [redis_url]}
    backends = {
        "redis": "cq.layers.RedisLayer",
        "stock": "channels_redis.core.RedisChannelLayer",
    }
    return {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": hosts},
        "cq": {"BACKEND": backends[kind], "CONFIG": hosts},
    }


DATABASE_KIND = os.environ.get("CQ_TEST_DB", "postgres")
DATABASE_URL = os.environ.get("CQ_TEST_DATABASE_URL", "")
REDIS_URL = os.environ.get("CQ_TEST_REDIS_URL", "")
LAYER_KIND = os.environ.get("CQ_TEST_LAYER", "redis" if REDIS_URL else "memory")

if DATABASE_URL:
    DATABASE_KIND = "sqlite" if DATABASE_URL.startswith("sqlite:") else "postgres"
if DATABASE_KIND not in ("postgres", "sqlite"):
    raise ValueError(
        f"CQ_TEST_DB is {DATABASE_KIND!r}. Expected postgres or sqlite. Unset it for postgres."
    )

DATABASES = {
    "default": database_from(
        DATABASE_URL
        or ("sqlite:///cq.sqlite3" if DATABASE_KIND == "sqlite" else "postgresql:///cq")
    )
}
CHANNEL_LAYERS = channel_layers_for(LAYER_KIND, REDIS_URL)
CQ: dict[str, Any] = {"EMBEDDED": False} | json.loads(os.environ.get("CQ_TEST_CQ", "{}"))

SECRET_KEY = "tests-only-and-nowhere-else"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "cq",
    "tests.sampleapp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "cq.asgi.application"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
TIME_ZONE = "UTC"

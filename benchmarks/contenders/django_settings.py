"""The Django settings of django-tasks-db and of plain Channels."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.contender import django_database, redis_url

SECRET_KEY = "only for benchmarks"
USE_TZ = True
INSTALLED_APPS = [
    name for name in ("channels", "django_tasks", "django_tasks_db") if find_spec(name) is not None
]
DATABASES = {"default": django_database()} if "django_tasks_db" in INSTALLED_APPS else {}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [redis_url()], "capacity": 100_000, "expiry": 3600},
    }
}
ASGI_APPLICATION = "benchmarks.contenders.channels.application"
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}

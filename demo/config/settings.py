"""
Settings of the demo.

With nothing set it is one process without any service: a SQLite file, a channel layer in
memory, and the worker inside the web process. With `DATABASE_URL` and `REDIS_URL` it is a
PostgreSQL and Redis project whose workers run beside the web process (see the Procfile).

Environment: DEMO_DATA (folder of the database and the pictures), DEMO_PACE (seconds a
tile takes at least), DEMO_HOSTS (host names, separated by commas), DEMO_DEBUG=1.
"""

import os
from pathlib import Path

from config import secret, services

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DEMO_DATA") or BASE_DIR / "var").resolve()
DATA.mkdir(mode=0o700, parents=True, exist_ok=True)

DATABASE_URL = os.environ.get("DATABASE_URL") or None
REDIS_URL = os.environ.get("REDIS_URL") or None

SECRET_KEY = secret.secret_key(DATA / "secret-key")
DEBUG = os.environ.get("DEMO_DEBUG") == "1"
ALLOWED_HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    *filter(None, os.environ.get("DEMO_HOSTS", "").split(",")),
]

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "cq",
    "picture",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.csp.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": services.postgresql(DATABASE_URL)
    if DATABASE_URL
    else services.sqlite(DATA / "demo.sqlite3")
}
CHANNEL_LAYERS = services.layers(REDIS_URL)
# So many tiles are printed at once: enough to see it, few enough to hand back at Ctrl-C.
CQ = {"EMBEDDED": not (DATABASE_URL or REDIS_URL), "SLOTS": 48}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
MEDIA_ROOT = DATA / "pictures"
SAMPLES = BASE_DIR / "pictures"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s  %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"cq": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}

DEMO_PACE = float(os.environ.get("DEMO_PACE") or 1.0)

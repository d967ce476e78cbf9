"""Settings of the standalone project, all from the environment; docs/settings.md lists HPC_*."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from controller import conf
from controller.project.checks import MADE_UP

BASE_DIR = Path(__file__).resolve().parent.parent.parent
HPC_DATA_DIRECTORY = Path(os.environ.get("HPC_DATA_DIRECTORY", BASE_DIR / "var"))

globals().update(conf.from_environment(os.environ))

DEBUG = os.environ.get("DJANGO_DEBUG", "") == "1"
# Without a key each process makes one up, which suits one process alone: hpc.W004 says so.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or MADE_UP + secrets.token_urlsafe(50)
ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if host.strip()
]

INSTALLED_APPS = [
    "controller",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "controller.project.urls"
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
WSGI_APPLICATION = "controller.project.wsgi.application"
ASGI_APPLICATION = "controller.project.asgi.application"


def _database() -> dj_database_url.DBConfig:
    url = os.environ.get("HPC_DATABASE_URL", "")
    if not url:
        url = f"sqlite:///{_data_directory() / 'db.sqlite3'}"
    try:
        database = dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True)
    except (ValueError, dj_database_url.UnknownSchemeError) as error:
        raise ImproperlyConfigured(  # its value may hold a password
            "HPC_DATABASE_URL can't be read: it must be a URL such as"
            " postgres://user:password@host:5432/name or sqlite:////path/to/file."
        ) from error
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # Writers wait for each other instead of failing in the middle of a transaction.
        # Source: https://docs.djangoproject.com/en/5.2/ref/databases/#transactions-behavior
        database["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
    return database


def _data_directory() -> Path:
    try:
        HPC_DATA_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"HPC_DATA_DIRECTORY can't be made: {HPC_DATA_DIRECTORY}: {error.strerror}."
        ) from error
    return HPC_DATA_DIRECTORY


def _redis() -> str:
    url = os.environ.get("HPC_REDIS_URL", "redis://127.0.0.1:6379/0")
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("redis", "rediss") and parts.port != 0
        is_good = bool(parts.hostname) if is_server else parts.scheme == "redis+socket"
    except ValueError:  # no number as port
        is_good = False
    if not is_good:
        raise ImproperlyConfigured(  # its value may hold a password
            "HPC_REDIS_URL can't be read: it must be a URL such as redis://host:6379/0,"
            " rediss://:password@host:6379/0 or redis+socket:///path/to/socket."
        )
    return url


def _log_level() -> str:
    level = os.environ.get("HPC_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ImproperlyConfigured(
            f"HPC_LOG_LEVEL is {level!r}; it must be DEBUG, INFO, WARNING or ERROR."
        )
    return level


DATABASES = {"default": _database()}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = HPC_DATA_DIRECTORY / "static"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

# Celery, as the web side needs it: publishing fails at once when Redis is away, for the sweep
# does what a lost nudge would have done. Workers add their own in workers.install.
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = _redis()
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_PUBLISH_RETRY = True
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 0}
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 86400,
    "priority_steps": [0],
    "socket_connect_timeout": 1,
    "socket_timeout": 2,
}
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {
    "retry_policy": {
        "max_retries": 0,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    }
}
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 1
CELERY_REDIS_SOCKET_TIMEOUT = 2
CELERY_RESULT_EXPIRES = 600
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False  # LOGGING below is meant for workers too

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "controller.project.logs.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": _log_level()},
}

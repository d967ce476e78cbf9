"""Settings of the portal; none is imported from the gateway's own project."""

import os

SECRET_KEY = "only for tests"
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["localhost", "testserver"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "people",
    "controller",
    "surveys",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
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
ROOT_URLCONF = "observatory.urls"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
AUTH_USER_MODEL = "people.Person"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("OBSERVATORY_DATABASE", ":memory:"),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL",
        },
    }
}
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = os.environ.get(
    "OBSERVATORY_REDIS", "redis://127.0.0.1:1/0"
)

HPC_INSTANCE_ID = "observatory"
HPC_SECRET_KEYS = ["b25seSBmb3IgdGVzdHMuLi4uLi4uLi4uLi4uLi4uLi4="]
HPC_ALLOW_LOCAL_CARRIER = True
HPC_ALLOW_ROOT = os.geteuid() == 0
HPC_JOB_CLASS = "surveys.models.Survey"
HPC_KEEPER_INTERVAL_S = 0.3
HPC_SWEEP_INTERVAL_S = 1
HPC_POLL_INTERVAL_S = 0.5

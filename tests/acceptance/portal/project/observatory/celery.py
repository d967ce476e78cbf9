"""The portal's own Celery app; the gateway is one line."""

import os

from celery import Celery

import workers.install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "observatory.settings")

app = Celery("observatory")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
workers.install.install(app)

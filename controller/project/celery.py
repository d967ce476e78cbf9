"""The standalone project's Celery app, as the web side uses it: it publishes, and fails fast."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controller.project.settings")

app = Celery("hpc")
app.config_from_object("django.conf:settings", namespace="CELERY")

"""The standalone app that `celery -A workers` finds: the project's own, with workers installed."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from controller import publish
from controller.project.celery import app

from .install import install

try:
    hasattr(settings, "SETTINGS_MODULE")  # loads them
except ImproperlyConfigured as problem:
    raise SystemExit(str(problem)) from problem

install(app)
app.conf.task_default_queue = publish.QUEUE
app.conf.worker_pool = "threads"

__all__ = ["app"]

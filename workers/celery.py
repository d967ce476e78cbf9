"""The standalone app that `celery -A workers` finds: the project's own, with workers installed."""

from __future__ import annotations

from controller import publish
from controller.project.celery import app

from .install import install

install(app)
app.conf.task_default_queue = publish.QUEUE
app.conf.worker_pool = "threads"

__all__ = ["app"]

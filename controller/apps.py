"""How Django sees the app."""

import celery
from django.apps import AppConfig


class ControllerConfig(AppConfig):
    """`controller` in INSTALLED_APPS; tables and permissions carry the label."""

    name = "controller"
    label = "hpc_job_controller"
    verbose_name = "HPC Job Controller"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and make the project's Celery app that of all threads."""
        from . import checks  # noqa: F401  # importing registers

        # An app is current only in the thread that made it; a web server's other threads would
        # publish to a made-up one at amqp://localhost.
        # Source: https://docs.celeryq.dev/en/stable/reference/celery.html#celery.Celery.set_default
        celery.current_app.set_default()

"""How Django sees the app."""

from django.apps import AppConfig


class ControllerConfig(AppConfig):
    """`controller` in INSTALLED_APPS; tables and permissions carry the label."""

    name = "controller"
    label = "hpc_job_controller"
    verbose_name = "HPC Job Controller"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from . import checks  # noqa: F401  # importing registers

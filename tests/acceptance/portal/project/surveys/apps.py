from typing import Any

from django.apps import AppConfig


class SurveysConfig(AppConfig):
    name = "surveys"

    def ready(self) -> None:
        from controller import signals

        from .models import Survey

        signals.job_status_changed.connect(tell, sender=Survey, dispatch_uid="surveys")


def tell(sender: Any, job: Any, after: Any, **_: Any) -> None:
    job.notices.create(words=f"{job.field_of_view} is {after.label}")

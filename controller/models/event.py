"""What happened to a job, for ever."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.functions import Now

from .. import lifecycle
from .job import STATUSES, HpcJob


class AppendOnly(models.QuerySet["JobEvent"]):
    """A history is read and added to."""

    def update(self, **kwargs: Any) -> int:
        raise TypeError("Job events are append-only: add one, change none.")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("Job events are append-only: they go with their job.")


class JobEvent(models.Model):
    """One entry of a job's history: the event, its cause, the move it made."""

    job = models.ForeignKey(HpcJob, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(db_default=Now(), help_text="By the database's clock.")
    happened_at = models.DateTimeField(
        null=True, blank=True, help_text="By the cluster's clock, if it was told."
    )
    event = models.CharField(
        max_length=32, choices=[(event.value, event.value) for event in lifecycle.Event]
    )
    status_before = models.IntegerField(choices=STATUSES)
    status_after = models.IntegerField(choices=STATUSES)
    source = models.CharField(max_length=32, help_text="user, worker, sweep, cluster or admin")
    cause = models.TextField(blank=True)
    run = models.PositiveIntegerField(default=0)
    data = models.JSONField(default=dict, blank=True)

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.event} of job {self.job_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("Job events are append-only: add one, change none.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("Job events are append-only: they go with their job.")

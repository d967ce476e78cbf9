"""A file on its way, with its progress and its end."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from .cluster import HpcCluster
from .job import HpcJob


class Direction(models.TextChoices):
    DOWNLOAD = "download", "download"
    UPLOAD = "upload", "upload"


class TransferState(models.TextChoices):
    PENDING = "pending", "pending"
    RUNNING = "running", "running"
    COMPLETED = "completed", "completed"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled: whoever read or wrote went away"


ACTIVE = (TransferState.PENDING, TransferState.RUNNING)


class FileTransfer(models.Model):
    """One file between a cluster and a reader or writer."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    cluster = models.ForeignKey(HpcCluster, on_delete=models.CASCADE, related_name="transfers")
    job = models.ForeignKey(
        HpcJob, on_delete=models.CASCADE, null=True, blank=True, related_name="transfers"
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    direction = models.CharField(max_length=16, choices=Direction)
    path = models.TextField(
        help_text="Relative to the job's directory; what is no UTF-8 in it is shown replaced."
    )
    path_b64 = models.TextField(blank=True, help_text="The exact bytes of the path, in base64.")
    etag = models.CharField(max_length=128, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    state = models.CharField(
        max_length=16, choices=TransferState, default=TransferState.PENDING, db_index=True
    )
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    done_bytes = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    failure = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["cluster", "state"], name="hpc_transfer_cluster_state")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=TransferState.values), name="hpc_transfer_state_known"
            ),
            models.CheckConstraint(
                condition=models.Q(direction__in=Direction.values),
                name="hpc_transfer_direction_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.direction} of {self.path}"

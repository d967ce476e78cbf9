"""A name, used once, by which a web process and a worker find each other for a transfer."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from .cluster import HpcCluster
from .transfer import FileTransfer


class WebsocketToken(models.Model):
    """Names a relay socket; single-use, lives 60 s, and is not itself a secret."""

    token = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    cluster = models.ForeignKey(HpcCluster, on_delete=models.CASCADE, related_name="tokens")
    transfer = models.ForeignKey(
        FileTransfer, on_delete=models.CASCADE, null=True, blank=True, related_name="tokens"
    )
    used = models.BooleanField(default=False)
    is_file = models.BooleanField(default=False)
    timestamp = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return str(self.token)

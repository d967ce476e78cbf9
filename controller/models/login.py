"""What stands between a worker and a cluster's login node: host keys, and logins counted."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from .cluster import HpcCluster


class HostKey(models.Model):
    """A key that a host of the cluster showed; good for logins once a person has confirmed it.

    A host that shows another key gets another row: what was confirmed never changes.
    """

    cluster = models.ForeignKey(HpcCluster, on_delete=models.CASCADE, related_name="host_keys")
    key_type = models.CharField("type", max_length=64)
    fingerprint = models.CharField(max_length=64, help_text="As ssh-keygen prints it: SHA256:...")
    address = models.CharField(max_length=64, blank=True, help_text="Where it was seen.")
    first_seen_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField("last seen", db_default=Now())
    is_offered = models.BooleanField(
        "shown now", default=True, help_text="Whether the last look at the hosts found it."
    )
    confirmed_at = models.DateTimeField("confirmed", null=True, blank=True)
    confirmed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["address", "key_type", "id"]
        default_permissions = ("view",)
        permissions = [("confirm_hostkey", "Can confirm host keys")]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "key_type", "fingerprint", "address"],
                name="hpc_host_key_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_type} {self.fingerprint}"


class LoginAttempt(models.Model):
    """One login to a cluster, counted before it is made; kept for as long as it counts."""

    cluster = models.ForeignKey(HpcCluster, on_delete=models.CASCADE, related_name="logins")
    at = models.DateTimeField(db_default=Now(), help_text="By the database's clock.")
    purpose = models.CharField(max_length=16, help_text="control, files or test")
    outcome = models.CharField(
        max_length=64, blank=True, help_text="good, the word of a failure, or empty: under way."
    )

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        indexes = [models.Index(fields=["cluster", "at"], name="hpc_login_cluster_at")]

    def __str__(self) -> str:
        return f"login to {self.cluster_id} at {self.at}"

"""Who holds the link to a cluster, and how far its events have been read."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class LinkState(models.TextChoices):
    """What the holder of a link last said of it."""

    DOWN = "down", "down"
    CONNECTING = "connecting", "connecting"
    UP = "up", "up"
    BLOCKED = "blocked", "blocked"


class LoginState(models.TextChoices):
    """How the cluster takes the credentials, since they or its place were changed."""

    UNTRIED = "", "not tried"
    TRYING = "trying", "being tried"
    GOOD = "good", "accepted"
    REFUSED = "refused", "refused"


class Worker(models.Model):
    """A process that holds links; its heartbeat gives it a share of them."""

    name = models.CharField(max_length=200, unique=True)
    host = models.CharField(max_length=250)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now(), help_text="By the database's clock.")
    is_draining = models.BooleanField(default=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ClusterLink(models.Model):
    """The lease on a cluster's one control connection, and what is known over it.

    `epoch` grows with each new holder, `generation` with each daemon that is started.
    """

    cluster = models.OneToOneField(
        "HpcCluster", on_delete=models.CASCADE, primary_key=True, related_name="link"
    )
    wanted = models.BooleanField(default=False, help_text="Whether a link should be held.")
    holder = models.CharField(max_length=200, blank=True, db_index=True)
    epoch = models.PositiveBigIntegerField(default=0)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="By the database's clock.")
    generation = models.PositiveBigIntegerField(default=0)
    instance_id = models.CharField(
        max_length=64, blank=True, help_text="The instance that bootstrapped this row."
    )
    bootstrap_requested_at = models.DateTimeField(null=True, blank=True)
    state = models.CharField(max_length=16, choices=LinkState, default=LinkState.DOWN)
    blocked_reason = models.CharField(max_length=64, blank=True)
    blocked_detail = models.TextField(blank=True, help_text="What happened and what to do.")
    blocked_since = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True, help_text="Next try.")
    failures = models.PositiveIntegerField(default=0, help_text="Failed tries in a row.")
    last_heard_at = models.DateTimeField(null=True, blank=True)
    last_polled_at = models.DateTimeField(null=True, blank=True)
    login_state = models.CharField(
        max_length=16, choices=LoginState, default=LoginState.UNTRIED, blank=True
    )
    login_changed_at = models.DateTimeField(null=True, blank=True)
    login_reason = models.CharField(max_length=64, blank=True)
    login_detail = models.TextField(blank=True, help_text="What the cluster said, what to do.")
    login_not_before = models.DateTimeField(null=True, blank=True, help_text="Next login.")
    address = models.CharField(
        max_length=64, blank=True, help_text="Where the control connection goes."
    )
    daemon_host = models.CharField(max_length=250, blank=True)
    outlives_login_on = models.CharField(
        max_length=250, blank=True, help_text="The host on which a daemon was seen to stay."
    )
    elsewhere_tries = models.PositiveIntegerField(
        default=0, help_text="Tries in a row to reach the daemon's own host."
    )
    moved_at = models.DateTimeField(
        null=True, blank=True, help_text="When the daemon was last moved to another login node."
    )
    daemon_pid = models.PositiveIntegerField(null=True, blank=True)
    client_version = models.CharField(max_length=64, blank=True)
    client_build = models.CharField(max_length=64, blank=True, help_text="Hash of its sources.")
    scheduler = models.CharField(max_length=64, blank=True, help_text="As the client reports it.")
    scheduler_version = models.CharField(max_length=200, blank=True)
    scheduler_overruled = models.BooleanField(default=False)
    capabilities = models.JSONField(default=dict, blank=True)
    outbox_id = models.CharField(max_length=64, blank=True)
    catching_up_to = models.PositiveBigIntegerField(
        default=0, help_text="Events up to here tell more than a comparison; 0: compare at once."
    )
    last_death = models.TextField(blank=True, help_text="How the daemon before this one ended.")

    class Meta:
        verbose_name = "Cluster link"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=LinkState.values), name="hpc_link_state_known"
            ),
            models.CheckConstraint(
                condition=models.Q(login_state__in=LoginState.values),
                name="hpc_link_login_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"link to {self.cluster}"


class OutboxCursor(models.Model):
    """The last event committed of one outbox of a cluster's client."""

    cluster = models.ForeignKey("HpcCluster", on_delete=models.CASCADE, related_name="cursors")
    outbox_id = models.CharField(max_length=64)
    seq = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "outbox_id"], name="hpc_cursor_once_per_outbox"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.outbox_id}:{self.seq}"


class UpkeepLease(models.Model):
    """Who does the global upkeep (expired tokens, old transfers, silent workers) now."""

    name = models.CharField(max_length=64, primary_key=True)
    holder = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

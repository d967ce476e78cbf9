"""A cluster that an admin registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from .secret import SecretField

if TYPE_CHECKING:
    from ..responses import RemoteFileResponse
    from .link import ClusterLink


class Carrier(models.TextChoices):
    """What carries the bytes between worker and cluster client."""

    SSH = "ssh", "SSH"
    LOCAL = "local", "a process on the worker's own machine"


class Scheduler(models.TextChoices):
    """The batch scheduler of the cluster."""

    LOCAL = "local", "none: jobs are processes of the cluster account"
    SLURM = "slurm", "Slurm"


class DaemonMode(models.TextChoices):
    """Whether the daemon outlives the login that started it."""

    DETACHED = "detached", "detached"
    ATTACHED = "attached", "attached to the control connection"


class HpcCluster(models.Model):
    """A login node to reach, the client on it, and the batch scheduler behind it.

    All who use one cluster share one account there: it is the boundary of trust.
    """

    name = models.CharField(
        max_length=64,
        unique=True,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", "Use letters, digits, . _ -")],
        help_text="How people and commands call it.",
    )
    host_name = models.CharField(
        "host", max_length=250, help_text="Host name or address of the login node."
    )
    port = models.PositiveIntegerField(
        default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    username = models.CharField("user", max_length=64, blank=True)
    key = SecretField("private key")
    password = SecretField(help_text="The user's password, or the passphrase of the key.")
    client_path = models.CharField(
        max_length=2048,
        help_text="Absolute path of the directory that holds client.py on the cluster.",
    )
    carrier = models.CharField(
        max_length=16,
        choices=Carrier,
        blank=True,
        help_text="Empty: SSH, unless the host is localhost.",
    )
    scheduler = models.CharField(max_length=16, choices=Scheduler, default=Scheduler.LOCAL)
    mode = models.CharField(max_length=16, choices=DaemonMode, default=DaemonMode.DETACHED)
    python = models.CharField(
        max_length=2048,
        blank=True,
        help_text="Python for the client, if it is not venv/ beside it or the newest on PATH.",
    )
    setup_commands = models.TextField(
        "set-up commands",
        blank=True,
        help_text="Run by a login shell before scheduler commands, such as `module load slurm`.",
    )
    umask = models.CharField(
        max_length=4,
        default="0077",
        validators=[RegexValidator(r"^0[0-7]{3}\Z", "A umask is 0 and three octal digits.")],
    )
    group = models.CharField(max_length=64, blank=True, help_text="Group of the jobs' files.")
    labels = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name = "Hpc Cluster"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(port__gte=1, port__lte=65535), name="hpc_cluster_port_in_range"
            ),
            models.CheckConstraint(
                condition=models.Q(client_path__startswith="/"),
                name="hpc_cluster_client_path_absolute",
            ),
        ]

    if TYPE_CHECKING:
        link: ClusterLink

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Mend what can be mended, refuse the rest with a sentence."""
        from ..services import clusters

        clusters.validate(self)

    def try_connect(self, force: bool = False) -> None:
        """Ask for a link to the cluster; a worker makes it. `force`: also see to the daemon anew.

        For programs, as often as they like: credentials that were refused are not tried again by
        it. A button that a person presses calls `services.clusters.connect`.
        """
        from ..services import clusters

        clusters.connect(self, force=force, is_by_person=False)

    def get_ssh_connection(self) -> tuple[Any, Any]:
        """A connected paramiko SSHClient and a session channel on it; close the client.

        For workers and management commands: it takes seconds, so never call it in a request.
        """
        from ..services import clusters

        return clusters.open_ssh(self)

    def fetch_remote_file(self, path: str | bytes, *, owner: Any = None) -> RemoteFileResponse:
        """The file at `path`, which begins with the tag of one of the cluster's jobs.

        As `HpcJob.fetch_remote_file`.
        """
        from .. import responses

        return responses.of_file(self, path, owner=owner)

    async def afetch_remote_file(
        self, path: str | bytes, *, owner: Any = None
    ) -> RemoteFileResponse:
        """The same for async views."""
        return await sync_to_async(self.fetch_remote_file)(path, owner=owner)

    def is_connected(self) -> bool:
        """Whether a worker holds a live link to the cluster now."""
        from .. import queries

        return queries.is_connected(self)

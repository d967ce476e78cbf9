"""A job: what was asked, where it stands, how it ended."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from .. import lifecycle
from .cluster import HpcCluster

if TYPE_CHECKING:
    from ..responses import RemoteFileResponse

STATUSES = [(status.value, status.label) for status in lifecycle.JobStatus]

LIFECYCLE_FIELDS = frozenset(
    {
        "tag", "job_status", "cluster", "attempt", "run", "scheduler_job_id",
        "claimed_epoch", "script",
        "job_pending_time", "job_submitting_time", "job_submitted_time", "job_queued_time",
        "job_running_time", "job_finished_time",
        "exit_code", "signal", "elapsed_s", "cpu_s", "max_memory_mib",
        "cancel_requested_at", "confirmed_at", "changed_at",
        "blocked_reason", "blocked_detail", "blocked_since", "not_before",
    }
)  # fmt: skip
"""Written by services alone: a portal's plain save() of a stale copy must not undo them."""


def new_tag() -> str:
    """A job's name on the cluster: one letter and 14 base32 characters (70 random bits).

    15 characters, because a PBS job name may be no longer.
    Source: https://2021.help.altair.com/2021.1.2/PBS%20Professional/PBSReferenceGuide2021.1.2.pdf
    """
    return "j" + base64.b32encode(secrets.token_bytes(9)).decode().lower()[:14]


class HpcJob(models.Model):
    """A job of a portal's user. Subclass it and name the subclass in HPC_JOB_CLASS."""

    tag = models.CharField(max_length=15, unique=True, default=new_tag, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    name = models.CharField(max_length=200, blank=True)
    cluster = models.ForeignKey(
        HpcCluster, on_delete=models.PROTECT, null=True, blank=True, related_name="jobs"
    )
    job_status = models.IntegerField(
        choices=STATUSES,
        default=lifecycle.JobStatus.DRAFT.value,
        db_index=True,
    )
    job_details = models.TextField(blank=True, help_text="Words on the last change, for people.")
    job_parameters = models.JSONField(null=True, blank=True)
    script = models.TextField(blank=True, help_text="The rendered body, as it is submitted.")
    environment = models.JSONField(default=dict, blank=True)

    nodes = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    tasks = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    cpus_per_task = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    memory_mib = models.PositiveIntegerField(
        "memory (MiB a node)", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    walltime_s = models.PositiveIntegerField(
        "walltime (s)", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    partition = models.CharField(max_length=200, blank=True)
    account = models.CharField(max_length=200, blank=True)
    qos = models.CharField("QOS", max_length=200, blank=True)

    attempt = models.PositiveIntegerField(default=0, help_text="Times sent to the client.")
    claimed_epoch = models.PositiveBigIntegerField(default=0)
    run = models.PositiveIntegerField(default=0, help_text="Restart count of the scheduler.")
    scheduler_job_id = models.CharField(max_length=200, blank=True, db_index=True)

    job_pending_time = models.DateTimeField(null=True, blank=True)
    job_submitting_time = models.DateTimeField(null=True, blank=True)
    job_submitted_time = models.DateTimeField(null=True, blank=True)
    job_queued_time = models.DateTimeField(null=True, blank=True)
    job_running_time = models.DateTimeField(null=True, blank=True)
    job_finished_time = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.IntegerField(null=True, blank=True)
    elapsed_s = models.FloatField(null=True, blank=True)
    cpu_s = models.FloatField(null=True, blank=True)
    max_memory_mib = models.FloatField(null=True, blank=True)

    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    blocked_reason = models.CharField(max_length=64, blank=True)
    blocked_detail = models.TextField(blank=True)
    blocked_since = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "Hpc Job"
        permissions = [
            ("submit_hpcjob", "Can submit jobs"),
            ("cancel_hpcjob", "Can cancel jobs"),
            ("read_files_hpcjob", "Can list and download the files of jobs"),
        ]
        indexes = [
            models.Index(fields=["cluster", "job_status"], name="hpc_job_cluster_status"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(job_status__in=[s.value for s in lifecycle.JobStatus]),
                name="hpc_job_status_known",
            ),
        ]

    def __str__(self) -> str:
        return f"job {self.pk} ({self.name})" if self.name else f"job {self.pk}"

    @property
    def status(self) -> lifecycle.JobStatus:
        """The status as an enum."""
        return lifecycle.JobStatus(self.job_status)

    @property
    def is_final(self) -> bool:
        """Whether the job has ended, however."""
        return self.status in lifecycle.FINAL

    def save(
        self,
        *args: Any,
        update_fields: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save what belongs to the portal; services alone write LIFECYCLE_FIELDS, by update()."""
        if self._state.adding or kwargs.get("force_insert"):
            super().save(*args, update_fields=update_fields, **kwargs)
            return
        names = update_fields or [field.name for field in self._meta.concrete_fields]
        own = [n for n in names if n not in LIFECYCLE_FIELDS and not self._is_key(n)]
        if own:
            super().save(*args, update_fields=own, **kwargs)

    def _is_key(self, name: str) -> bool:
        return bool(getattr(self._meta.get_field(name), "primary_key", False))

    def clean(self) -> None:
        """Mend what a form can't say right, refuse the rest with a sentence."""
        from ..services import jobs

        jobs.validate(self)

    def choose_cluster(self, parameters: Any) -> HpcCluster | None:
        """The cluster to run on, or None if none fits now. Made to be overridden."""
        from .. import queries

        return queries.choose_cluster(self, parameters)

    def render(self, parameters: Any) -> str:
        """The body of the script for `parameters`. Made to be overridden."""
        from ..services import jobs

        return jobs.render_script(self, parameters)

    def submit(self, parameters: Any) -> lifecycle.JobStatus:
        """Submit the job; returns its status (PENDING). Not made to be overridden."""
        from ..services import jobs

        return jobs.submit(self, parameters)

    def cancel(self) -> lifecycle.JobStatus:
        """Cancel the job; returns its status."""
        from ..services import jobs

        return jobs.cancel(self)

    def delete_job(self) -> lifecycle.JobStatus:
        """Delete the job's data on the cluster; returns its status (DELETING)."""
        from ..services import jobs

        return jobs.delete(self)

    def fetch_remote_file(self, path: str | bytes, *, owner: Any = None) -> RemoteFileResponse:
        """The file at `path` in the job's directory, as the response of a view.

        Waits until the cluster has said whether it can be read; raises an HpcError if it can't.
        `owner`: who it counts for among those who fetch files.
        """
        from .. import responses

        return responses.of_file(self, path, owner=owner)

    async def afetch_remote_file(
        self, path: str | bytes, *, owner: Any = None
    ) -> RemoteFileResponse:
        """The same for async views."""
        return await sync_to_async(self.fetch_remote_file)(path, owner=owner)

    def fetch_remote_file_list(
        self, path: str | bytes = "", *, after_b64: str = "", limit: int = 1000
    ) -> dict[str, Any]:
        """One page of a directory: {"entries": [...], "is_complete": bool}.

        The next page is the one `after_b64`, the `name_b64` of the last entry.
        """
        from ..services import files

        return files.list_directory(self, path, after_b64=after_b64, limit=limit)

    async def afetch_remote_file_list(
        self, path: str | bytes = "", *, after_b64: str = "", limit: int = 1000
    ) -> dict[str, Any]:
        """The same for async views."""
        ask = sync_to_async(self.fetch_remote_file_list)
        return await ask(path, after_b64=after_b64, limit=limit)


@receiver(pre_delete, sender=HpcJob, dispatch_uid="controller.models.job")
def keep_row_of_job_at_work(instance: HpcJob, using: str, **_: Any) -> None:
    """Raise ProtectedError where nobody would follow, cancel or clear away the job any more.

    A signal, because a cascade or a queryset calls no method of the model; Django sends it in the
    transaction that deletes.
    """
    rows = HpcJob._base_manager.using(using).select_for_update()
    job = rows.filter(pk=instance.pk, job_status__in=lifecycle.AT_WORK).first()
    if job is None:
        return
    raise models.ProtectedError(
        f"Job {job.pk} is {job.status.label}: cancel it, or wait until it is over, before its row"
        " is deleted.",
        {instance},
    )

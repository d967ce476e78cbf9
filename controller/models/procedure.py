"""What a worker does to a cluster on request, step by step, for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from .cluster import HpcCluster

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager


class Kind(models.TextChoices):
    """What is done."""

    HOST_KEYS = "host_keys", "fetch the host keys"
    TEST = "test", "test the connection"
    BOOTSTRAP = "bootstrap", "bootstrap"


class ProcedureState(models.TextChoices):
    WAITING = "waiting", "waiting for a worker"
    RUNNING = "running", "under way"
    DONE = "done", "done"
    FAILED = "failed", "failed"


ACTIVE = (ProcedureState.WAITING, ProcedureState.RUNNING)


class StepOutcome(models.TextChoices):
    DONE = "done", "done"
    SKIPPED = "skipped", "nothing to do"
    FAILED = "failed", "failed"


class Procedure(models.Model):
    """One fetch of host keys, one test, one bootstrap; of each kind one at a time a cluster."""

    cluster = models.ForeignKey(HpcCluster, on_delete=models.CASCADE, related_name="procedures")
    kind = models.CharField(max_length=16, choices=Kind)
    state = models.CharField(max_length=16, choices=ProcedureState, default=ProcedureState.WAITING)
    requested_at = models.DateTimeField(db_default=Now())
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=64, blank=True, help_text="The word of a failure.")
    detail = models.TextField(blank=True, help_text="What came of it, what to do.")

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=ProcedureState.values),
                name="hpc_procedure_state_known",
            ),
            models.UniqueConstraint(
                fields=["cluster", "kind"],
                condition=models.Q(state__in=[state.value for state in ACTIVE]),
                name="hpc_procedure_one_active",
            ),
        ]

    if TYPE_CHECKING:
        steps: RelatedManager[Step]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.cluster}"

    @property
    def is_active(self) -> bool:
        """Whether it waits or is under way."""
        return self.state in ACTIVE


class Step(models.Model):
    """One step of a procedure, written when it has ended."""

    procedure = models.ForeignKey(Procedure, on_delete=models.CASCADE, related_name="steps")
    name = models.CharField(max_length=100)
    outcome = models.CharField(max_length=16, choices=StepOutcome)
    took_s = models.FloatField("took (s)")
    detail = models.TextField(blank=True)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.name}: {self.outcome}"

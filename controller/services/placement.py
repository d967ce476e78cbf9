"""Which cluster a job goes to, and the jobs for which there was none."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from .. import errors, publish, queries
from ..lifecycle import JobStatus
from ..models import HpcCluster, HpcJob
from . import moves

logger = logging.getLogger(__name__)

NO_CLUSTER = "no_cluster"
NO_CLUSTER_DETAIL = (
    "No cluster that is online can run this job: it goes on when one comes up. Connect a"
    " cluster, or cancel the job."
)
RETRY_S = 60.0


def choose(job: HpcJob, parameters: Any) -> HpcCluster | None:
    """The explicit cluster, else the job's own choice; refused if it can't do what is asked."""
    cluster = explicit(job, parameters)
    if cluster is None:
        cluster = job.choose_cluster(parameters)
    if cluster is None:
        return None
    clauses = queries.misfits(queries.link_of(cluster), queries.resources_of(job))
    if clauses:
        raise errors.Invalid(f"Cluster {cluster.name} can't run this: {'; '.join(clauses)}.")
    return cluster


def explicit(job: HpcJob, parameters: Any) -> HpcCluster | None:
    """The cluster that the job or its parameters name (by name or id)."""
    if job.cluster is not None:
        return job.cluster
    named = parameters.get("cluster") if isinstance(parameters, dict) else None
    if named is None:
        return None
    is_id = isinstance(named, int) and not isinstance(named, bool)
    wanted = Q(pk=named) if is_id and abs(named) < 2**63 else Q(name=str(named))
    cluster = HpcCluster.objects.filter(wanted).first()
    if cluster is None:
        raise errors.NotFound(f"There is no cluster {named!r}: see `hpc cluster list`.")
    return cluster


def waiting() -> dict[str, Any]:
    """The columns of a job for which there is no cluster now."""
    return {
        "blocked_reason": NO_CLUSTER,
        "blocked_detail": NO_CLUSTER_DETAIL,
        "blocked_since": Now(),
        "not_before": moves.in_future(RETRY_S),
    }


def place_waiting(limit: int = 100, *, is_due_only: bool = True) -> int:
    """Give clusters to PENDING jobs that have none; returns how many got one."""
    rows = HpcJob._base_manager.filter(job_status=JobStatus.PENDING, cluster=None)
    if is_due_only:
        rows = rows.filter(queries.due())
    job_ids = rows.order_by("pk").values_list("pk", flat=True)[:limit]
    return sum(_place(job_id) for job_id in job_ids)


def _place(job_id: int) -> bool:
    try:
        job = moves.load(job_id)
        cluster = choose(job, job.job_parameters)
    except errors.HpcError as error:
        moves.block(job_id, NO_CLUSTER, str(error), moves.in_future(RETRY_S))
        return False
    if cluster is None:
        moves.defer(job_id, RETRY_S)
        return False
    with transaction.atomic():
        is_placed = bool(
            HpcJob._base_manager.filter(
                pk=job_id, job_status=JobStatus.PENDING, cluster=None
            ).update(cluster=cluster, changed_at=Now(), **moves.UNBLOCKED)
        )
        if is_placed:
            logger.info("job placed", extra={"job": job_id, "cluster": cluster.pk})
            publish.submit_job(cluster.pk, job_id)
    return is_placed

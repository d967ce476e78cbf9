"""Reads: nothing here writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.db.models import Case, Count, F, Q, QuerySet, When
from django.db.models.functions import Coalesce, Now
from django.utils.module_loading import import_string

from . import conf, lifecycle
from .lifecycle import JobStatus
from .models import (
    ClusterLink,
    HostKey,
    HpcCluster,
    HpcJob,
    LinkState,
    LoginAttempt,
    Procedure,
    Worker,
)

RESOURCES: dict[str, type] = {
    "nodes": int,
    "tasks": int,
    "cpus_per_task": int,
    "memory_mib": int,
    "walltime_s": int,
    "partition": str,
    "account": str,
    "qos": str,
}
"""What a job may ask of its scheduler, by the names of the columns."""

WORKER_ALIVE_S = 10.0
"""A worker whose heartbeat is older counts as gone, and its share goes to the others."""

COMPARED = frozenset({*lifecycle.MAY_BE_ON_CLUSTER, JobStatus.CANCELLING})
"""What both sides compare: the daemon may know it and it has not ended."""

UNKNOWN_TO_CLUSTER = "unknown_to_cluster"
NO_EVIDENCE = "no_evidence"
LOST_SIGHT = (UNKNOWN_TO_CLUSTER, NO_EVIDENCE)
"""Reasons to block a job of which the cluster tells nothing: its client can be asked again."""
SWEPT = (JobStatus.PENDING, JobStatus.SUBMITTING, JobStatus.DELETING)
"""Where a job may wait for the holder of its link."""


@dataclass(frozen=True)
class Spent:
    """How many logins to a cluster were counted, and how many are allowed."""

    last_minute: int
    last_hour: int
    per_minute: int
    per_hour: int


_placed: ContextVar[Counter[int] | None] = ContextVar("hpc_placed", default=None)


def resources_of(job: HpcJob) -> dict[str, int | str]:
    """What the job asks for, by name; what it leaves to the site is left out."""
    return {name: getattr(job, name) for name in RESOURCES if getattr(job, name) not in (None, "")}


def choose_cluster(job: HpcJob, parameters: Any) -> HpcCluster | None:
    """HPC_CLUSTER_CHOOSER's choice, else the least loaded cluster that is online and suits."""
    path = conf.get().cluster_chooser
    if path:
        return cast("HpcCluster | None", import_string(path)(job, parameters))
    open_jobs = Count("jobs", filter=Q(jobs__job_status__in=lifecycle.OPEN))
    clusters = HpcCluster.objects.filter(_online("link__")).select_related("link")
    asked, placed = resources_of(job), _placed.get() or Counter()
    loads = [(c.open_jobs + placed[c.pk], c.pk, c) for c in clusters.annotate(open_jobs=open_jobs)]
    for _, _, cluster in sorted(loads):
        if not misfits(cluster.link, asked):
            return cluster
    return None


@contextmanager
def placing() -> Iterator[Counter[int]]:
    """Has `choose_cluster` count jobs that are not stored yet: those noted here, by cluster."""
    counter: Counter[int] = Counter()
    token = _placed.set(counter)
    try:
        yield counter
    finally:
        _placed.reset(token)


def misfits(link: ClusterLink | None, asked: dict[str, Any]) -> list[str]:
    """What the cluster can't do of what is asked, one clause each; nothing if it is not known."""
    capabilities = link.capabilities if link is not None else {}
    known = capabilities.get("resources")  # none at all is known too
    clauses = [f"it knows no {name}" for name in asked if known is not None and name not in known]
    partitions = capabilities.get("partitions") or []
    # Slurm takes a list, and starts the job in whichever is ready first.
    # Source: https://slurm.schedmd.com/sbatch.html#OPT_partition
    wanted = [name for name in str(asked.get("partition") or "").split(",") if name]
    unknown = [name for name in wanted if name not in partitions] if partitions else []
    clauses += [f"it has no partition {n!r} (only {', '.join(partitions)})" for n in unknown]
    return clauses


def is_connected(cluster: HpcCluster) -> bool:
    """Whether a worker holds a live link to the cluster now."""
    return online_links().filter(pk=cluster.pk).exists()


def online_links() -> QuerySet[ClusterLink]:
    """The links that a worker holds and over which the client has greeted."""
    return ClusterLink.objects.filter(_online())


def link_of(cluster: HpcCluster) -> ClusterLink | None:
    """The cluster's link row, if a link was ever asked for."""
    return ClusterLink.objects.filter(pk=cluster.pk).first()


def is_worker_alive() -> bool:
    """Whether any worker that holds links was heard of of late."""
    return Worker.objects.exclude(older_than("heartbeat_at", WORKER_ALIVE_S)).exists()


def logins_spent(cluster_id: int) -> Spent:
    """How many logins to the cluster were counted lately, by the database's clock."""
    rows = LoginAttempt.objects.filter(cluster=cluster_id)
    last_minute = rows.exclude(older_than("at", 60)).count()
    last_hour = rows.exclude(older_than("at", 3600)).count()
    settings = conf.get()
    return Spent(last_minute, last_hour, settings.logins_per_minute, settings.logins_per_hour)


def host_keys_of(cluster: HpcCluster) -> list[HostKey]:
    """All host keys that the cluster ever showed, by address and type."""
    return list(cluster.host_keys.select_related("confirmed_by"))


def latest_procedures(cluster: HpcCluster, limit: int = 5) -> list[Procedure]:
    """The newest procedures of the cluster with their steps, the newest first."""
    rows = cluster.procedures.select_related("requested_by").prefetch_related("steps")
    return list(rows[:limit])


def due_pending(cluster_id: int, limit: int) -> list[int]:
    """Ids of jobs that wait to be submitted, oldest first."""
    return _ids(_of(cluster_id, JobStatus.PENDING).filter(due()), limit)


def stale_submitting(cluster_id: int, limit: int) -> list[int]:
    """Ids of jobs whose submission must be asked for again."""
    epoch = ClusterLink.objects.filter(pk=cluster_id).values_list("epoch", flat=True).first() or 0
    return _ids(_of(cluster_id, JobStatus.SUBMITTING).filter(stale_claim(epoch)), limit)


def stale_cancelling(cluster_id: int, limit: int) -> list[int]:
    """Ids of jobs whose cancel must be asked for again."""
    return _ids(_stale_since_change(cluster_id, JobStatus.CANCELLING), limit)


def stale_deleting(cluster_id: int, limit: int) -> list[int]:
    """Ids of jobs whose data must be asked again to be deleted."""
    return _ids(_stale_since_change(cluster_id, JobStatus.DELETING), limit)


def lost_sight_of(cluster_id: int, limit: int) -> list[str]:
    """Tags of jobs about which the client is to be asked again now, the longest due first."""
    rows = HpcJob._base_manager.filter(
        cluster=cluster_id,
        job_status__in=lifecycle.IN_SCHEDULER,
        blocked_reason__in=LOST_SIGHT,
        not_before__lte=Now(),
    )
    return list(rows.order_by("not_before", "pk").values_list("tag", flat=True)[:limit])


def may_be_due(cluster_id: int) -> bool:
    """Whether any job of the cluster is where a sweep might have to see to it: one cheap question
    in place of one for each kind."""
    waits = Q(job_status__in=SWEPT)
    is_lost = Q(job_status__in=lifecycle.IN_SCHEDULER, blocked_reason__in=LOST_SIGHT)
    return HpcJob._base_manager.filter(waits | is_lost, cluster=cluster_id).exists()


def open_tags(cluster_id: int) -> list[str]:
    """Tags that the server holds open on the cluster, to be compared with the daemon's."""
    rows = HpcJob._base_manager.filter(cluster=cluster_id, job_status__in=COMPARED)
    return list(rows.order_by("pk").values_list("tag", flat=True))


def backlog(cluster_id: int) -> dict[str, int]:
    """How many jobs of the cluster are in each status that is not an end."""
    rows = HpcJob._base_manager.filter(cluster=cluster_id, job_status__in=lifecycle.OPEN)
    counts = rows.order_by().values_list("job_status").annotate(count=Count("pk"))
    return {JobStatus(status).name: count for status, count in counts}


def due() -> Q:
    """Rows that nothing holds back now."""
    return Q(not_before=None) | Q(not_before__lte=Now())


def older_than(column: str, age_s: float) -> Q:
    """Rows whose `column` lies more than `age_s` in the past of the database's clock."""
    return Q(**{f"{column}__lte": Now() - timedelta(seconds=age_s)})


def stale_claim(epoch: int) -> Q:
    """Which SUBMITTING jobs of a cluster may be asked for again by the holder of `epoch`."""
    old = older_than("job_submitting_time", conf.get().submitting_stale_s)
    return due() & (~Q(claimed_epoch=epoch) | old)


def with_confirmation(jobs: QuerySet[HpcJob]) -> QuerySet[HpcJob]:
    """The jobs with `last_confirmed`: when the cluster last showed them, by poll or by event."""
    polled = Case(
        When(
            job_status__in=lifecycle.IN_SCHEDULER,
            blocked_reason__in=("", lifecycle.NEEDS_ACTION),
            then=Coalesce("cluster__link__last_polled_at", "confirmed_at"),
        ),
        default=F("confirmed_at"),
    )
    return jobs.annotate(last_confirmed=polled)


def last_confirmed(job: HpcJob) -> datetime | None:
    """When the cluster last showed the job; asks the database unless `with_confirmation` did."""
    found: HpcJob | None = job
    if not hasattr(job, "last_confirmed"):
        found = with_confirmation(HpcJob._base_manager.filter(pk=job.pk)).first()
    return cast("datetime | None", getattr(found, "last_confirmed", None))


def _online(prefix: str = "") -> Q:
    return Q(**{f"{prefix}state": LinkState.UP, f"{prefix}expires_at__gt": Now()}) & ~Q(
        **{f"{prefix}holder": ""}
    )


def _of(cluster_id: int, status: JobStatus) -> QuerySet[HpcJob]:
    return HpcJob._base_manager.filter(cluster=cluster_id, job_status=status)


def _stale_since_change(cluster_id: int, status: JobStatus) -> QuerySet[HpcJob]:
    stale = older_than("changed_at", conf.get().cancelling_stale_s)
    return _of(cluster_id, status).filter(stale).filter(due())


def _ids(rows: QuerySet[HpcJob], limit: int) -> list[int]:
    ids: Iterable[int] = rows.order_by("pk").values_list("pk", flat=True)[:limit]
    return list(ids)

"""Clusters of the stack that are the rig's login node: registered, bootstrapped, linked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from controller.lifecycle import FINAL, JobStatus
from controller.models import ClusterLink, HpcCluster, HpcJob, LinkState
from controller.services import clusters, host_keys, jobs
from ops import errors, processes, services

from .rig import Rig

LIMIT_S = 60.0


def add(rig: Rig, name: str) -> HpcCluster:
    """A cluster of the rig's account, its host keys confirmed; no link is wanted yet.

    All have one client path: each has a daemon and a state directory of its own there.
    """
    return clusters.register(
        name=name,
        host_name=rig.cluster.login_node.address,
        port=rig.cluster.login_node.port,
        carrier="ssh",
        username=rig.account.name,
        key=rig.cluster.site.key.read_text(),
        client_path=str(client_path(rig)),
        scheduler="slurm",
    )


def pin(rig: Rig, cluster: HpcCluster) -> None:
    """Have a worker look at the host keys, and confirm all."""
    procedure = host_keys.fetch(cluster)

    def is_over() -> bool:
        procedure.refresh_from_db()
        return not procedure.is_active

    wait(rig, is_over, "the host keys to be fetched")
    ids = cluster.host_keys.filter(is_offered=True).values_list("pk", flat=True)
    host_keys.confirm(cluster, list(ids))


def linked(rig: Rig, name: str) -> HpcCluster:
    """A cluster whose link is up."""
    cluster = add(rig, name)
    pin(rig, cluster)
    clusters.connect(cluster)
    wait_up(rig, [cluster])
    return cluster


def wait_up(rig: Rig, wanted: Sequence[HpcCluster], limit_s: float = LIMIT_S) -> None:
    """Wait until the links of all are up."""
    ids = [cluster.pk for cluster in wanted]
    up = ClusterLink.objects.filter(pk__in=ids, state=LinkState.UP)
    wait(rig, lambda: up.count() == len(ids), f"{len(ids)} links to come up", limit_s)


def daemon_pid(cluster: HpcCluster) -> int:
    """The daemon that serves the cluster."""
    pid = ClusterLink.objects.get(pk=cluster.pk).daemon_pid
    if pid is None:
        raise errors.OpsError(f"The daemon of {cluster} is not known.")
    return pid


def client_path(rig: Rig) -> Path:
    """Where the cluster client is, on the login node."""
    return rig.account.home / "client"


def job_directory(rig: Rig, job: HpcJob) -> Path:
    """The job's directory on the login node, as this machine sees it."""
    return client_path(rig) / "jobs" / job.tag


def submit(cluster: HpcCluster, script: str) -> HpcJob:
    """A new job, submitted as a portal does."""
    job = HpcJob.objects.create(cluster=cluster)
    jobs.submit(job, {"script": script})
    return job


def wait_status(
    rig: Rig, job: HpcJob, status: JobStatus, limit_s: float = LIMIT_S, step_s: float = 0.005
) -> None:
    """Wait until the job has the status; OpsError if it ended otherwise."""

    def is_there() -> bool:
        job.refresh_from_db(fields=["job_status", "blocked_detail"])
        return job.status is status or job.status in FINAL

    wait(rig, is_there, f"job {job.pk} to be {status.label}", limit_s, step_s)
    if job.status is not status:
        raise errors.OpsError(f"Job {job.pk} ended as {job.status.label}, not {status.label}.")


def wait_accepted(rig: Rig, job: HpcJob) -> None:
    """Wait until the scheduler has the job: it is SUBMITTED, or further already."""

    def is_there() -> bool:
        job.refresh_from_db(fields=["job_status", "blocked_detail"])
        return job.status >= JobStatus.SUBMITTED

    wait(rig, is_there, f"job {job.pk} to be SUBMITTED", step_s=0.003)
    if job.status in FINAL:
        raise errors.OpsError(f"Job {job.pk} ended as {job.status.label}.")


def wait(
    rig: Rig,
    is_met: Callable[[], bool],
    what: str,
    limit_s: float = LIMIT_S,
    step_s: float = 0.02,
) -> None:
    """Wait for a condition; OpsError with the logs' last words if it takes too long."""
    if processes.wait_until(is_met, limit_s, step_s=step_s):
        return
    logs = sorted(rig.stack.log_directory.glob("*.log"))
    logs += sorted((client_path(rig) / "log").glob("*.log"))
    tails = "\n".join(f"--- {log.name}: {services.last_lines(log, 15)}" for log in logs)
    rows = "\n".join(str(row) for row in ClusterLink.objects.values()[:3])
    raise errors.OpsError(f"Waited {limit_s:g} s for {what}.\n{rows}\n{tails}")


def copy_pins(known: HpcCluster, cluster: HpcCluster) -> None:
    """Confirm for one cluster of the login node what is confirmed for another."""
    for key in known.host_keys.all():
        key.pk, key.cluster = None, cluster
        key.save(force_insert=True)

"""Rows as JSON: for commands, and whoever reads them by machine. No secret is ever among it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from . import queries
from .lifecycle import JobStatus
from .models import ClusterLink, HostKey, HpcCluster, HpcJob, JobEvent, Procedure


def describe_cluster(cluster: HpcCluster) -> dict[str, Any]:
    """The cluster and its link as JSON."""
    link = queries.link_of(cluster)
    return {
        "id": cluster.pk,
        "name": cluster.name,
        "host": cluster.host_name,
        "port": cluster.port,
        "user": cluster.username,
        "client_path": cluster.client_path,
        "carrier": cluster.carrier,
        "scheduler": cluster.scheduler,
        "mode": cluster.mode,
        "has_key": bool(cluster.key),
        "has_password": bool(cluster.password),
        "connected": queries.is_connected(cluster),
        "link": _describe_link(link) if link else None,
        "login": _describe_login(link) if link else None,
        "host_keys": [describe_host_key(key) for key in queries.host_keys_of(cluster)],
        "procedures": [describe_procedure(one) for one in queries.latest_procedures(cluster)],
        "backlog": queries.backlog(cluster.pk),
    }


def describe_host_key(key: HostKey) -> dict[str, Any]:
    """A host key as JSON."""
    return {
        "id": key.pk,
        "type": key.key_type,
        "fingerprint": key.fingerprint,
        "address": key.address,
        "is_confirmed": key.confirmed_at is not None,
        "confirmed_at": _iso(key.confirmed_at),
        "confirmed_by": str(key.confirmed_by) if key.confirmed_by else None,
        "is_offered": key.is_offered,
        "first_seen_at": _iso(key.first_seen_at),
        "seen_at": _iso(key.seen_at),
    }


def describe_procedure(procedure: Procedure) -> dict[str, Any]:
    """A procedure and its steps as JSON."""
    by = procedure.requested_by
    return {
        "id": procedure.pk,
        "kind": procedure.kind,
        "state": procedure.state,
        "requested_at": _iso(procedure.requested_at),
        "requested_by": str(by) if by else None,
        "started_at": _iso(procedure.started_at),
        "finished_at": _iso(procedure.finished_at),
        "worker": procedure.worker or None,
        "reason": procedure.reason,
        "detail": procedure.detail,
        "steps": [
            {
                "name": step.name,
                "outcome": step.outcome,
                "took_s": step.took_s,
                "detail": step.detail,
                "at": _iso(step.at),
            }
            for step in procedure.steps.all()
        ],
    }


def describe_job(job: HpcJob) -> dict[str, Any]:
    """The job as JSON."""
    return {
        "id": job.pk,
        "tag": job.tag,
        "name": job.name,
        "owner": job.owner_id,
        "cluster": job.cluster.name if job.cluster else None,
        "status": job.status.name,
        "status_code": job.job_status,
        "is_final": job.is_final,
        "details": job.job_details,
        "scheduler_job_id": job.scheduler_job_id or None,
        "resources": queries.resources_of(job),
        "attempt": job.attempt,
        "run": job.run,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "elapsed_s": job.elapsed_s,
        "cpu_s": job.cpu_s,
        "max_memory_mib": job.max_memory_mib,
        "blocked": _describe_block(job),
        "last_confirmed": _iso(queries.last_confirmed(job)),
        "times": _describe_times(job),
    }


def describe_event(event: JobEvent) -> dict[str, Any]:
    """An entry of a job's history as JSON."""
    return {
        "id": event.pk,
        "at": _iso(event.at),
        "happened_at": _iso(event.happened_at),
        "event": event.event,
        "before": JobStatus(event.status_before).name,
        "after": JobStatus(event.status_after).name,
        "source": event.source,
        "cause": event.cause,
        "run": event.run,
        "data": event.data,
    }


def _describe_link(link: ClusterLink) -> dict[str, Any]:
    return {
        "wanted": link.wanted,
        "state": link.state,
        "holder": link.holder or None,
        "epoch": link.epoch,
        "expires_at": _iso(link.expires_at),
        "generation": link.generation,
        "daemon_host": link.daemon_host,
        "daemon_pid": link.daemon_pid,
        "client_version": link.client_version,
        "client_build": link.client_build,
        "scheduler": link.scheduler,
        "scheduler_version": link.scheduler_version,
        "scheduler_overruled": link.scheduler_overruled,
        "last_heard_at": _iso(link.last_heard_at),
        "last_polled_at": _iso(link.last_polled_at),
        "last_death": link.last_death,
        "failures": link.failures,
        "blocked_reason": link.blocked_reason,
        "detail": link.blocked_detail,
        "not_before": _iso(link.not_before),
    }


def _describe_login(link: ClusterLink) -> dict[str, Any]:
    return {
        "state": link.login_state or "untried",
        "changed_at": _iso(link.login_changed_at),
        "reason": link.login_reason,
        "detail": link.login_detail,
        "not_before": _iso(link.login_not_before),
        "spent": asdict(queries.logins_spent(link.pk)),
    }


def _describe_block(job: HpcJob) -> dict[str, Any] | None:
    if not job.blocked_reason:
        return None
    return {
        "reason": job.blocked_reason,
        "detail": job.blocked_detail,
        "since": _iso(job.blocked_since),
        "not_before": _iso(job.not_before),
    }


def _describe_times(job: HpcJob) -> dict[str, str | None]:
    names = ("pending", "submitting", "submitted", "queued", "running", "finished")
    times = {name: _iso(getattr(job, f"job_{name}_time")) for name in names}
    return {"created": _iso(job.created_at)} | times


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None

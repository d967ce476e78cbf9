"""How the page of a job is laid out, and its panel "Now"."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.urls import reverse

from .. import lifecycle, queries
from ..lifecycle import JobStatus
from ..models import HpcJob
from ..services import jobs
from . import headlines, records

REFRESH_S = 1.5
EVENTS_SHOWN = 50

DRAFT_FIELDS = ("name", "owner", "cluster", "script")
RESULTS = ("exit_code", "signal", "elapsed_s", "cpu_s", "max_memory_mib")
INPUT = ("job_parameters", "environment")
IDENTITY = ("tag", "scheduler_job_id", "run", "attempt", "claimed_epoch", "confirmed_at")
TIMES = (
    "created_at",
    "job_pending_time",
    "job_submitting_time",
    "job_submitted_time",
    "job_queued_time",
    "job_running_time",
    "job_finished_time",
    "cancel_requested_at",
    "changed_at",
)
IN_PANEL = (
    "job_status",
    "job_details",
    "blocked_reason",
    "blocked_detail",
    "blocked_since",
    "not_before",
)
"""What the panel tells, in words."""

NEEDS_LINK = frozenset(lifecycle.AT_WORK)


def fieldsets(kind: type[HpcJob], job: HpcJob | None) -> list[tuple[str | None, dict[str, Any]]]:
    """The sections of the form; a portal's own columns have one of their own."""
    sections: list[tuple[str | None, dict[str, Any]]] = [
        (None, {"fields": DRAFT_FIELDS}),
        ("What it asks of the scheduler", {"fields": _pairs(jobs.RESOURCES)}),
        ("Parameters and environment", {"fields": INPUT, "classes": ("collapse",)}),
    ]
    if job is None:
        return sections
    known = {*DRAFT_FIELDS, *jobs.RESOURCES, *RESULTS, *INPUT, *IDENTITY, *TIMES, *IN_PANEL}
    own = tuple(name for name in records.names(kind) if name not in known)
    if own:
        sections.insert(1, ("More", {"fields": own}))
    if job.is_final or job.status in (JobStatus.DELETING, JobStatus.DELETED):
        sections.insert(1, ("How it ended", {"fields": _pairs(RESULTS)}))
    sections += [
        ("On the cluster", {"fields": IDENTITY, "classes": ("collapse",)}),
        ("Times", {"fields": TIMES, "classes": ("collapse",)}),
    ]
    return sections


def panel(job: HpcJob, user: AbstractBaseUser | AnonymousUser) -> dict[str, Any]:
    """What the panel's template shows."""
    events = list(job.events.order_by("-pk")[: EVENTS_SHOWN + 1])
    return {
        "job": job,
        "headline": headlines.of_job(job),
        "last_confirmed": queries.last_confirmed(job),
        "may_be_confirmed": job.status not in (JobStatus.DRAFT, JobStatus.PENDING),
        "link": _link(job),
        "may_see_cluster": _may_see(user, "hpccluster"),
        "events": events[:EVENTS_SHOWN],
        "all_events_url": _events_url(job) if len(events) > EVENTS_SHOWN else "",
        "refresh_s": REFRESH_S if job.status in lifecycle.AT_WORK else None,
    }


def _link(job: HpcJob) -> headlines.Headline | None:
    """How the cluster's link stands, where the job has to wait for it."""
    if job.cluster is None or job.status not in NEEDS_LINK or queries.is_connected(job.cluster):
        return None
    return headlines.of_link(
        queries.link_of(job.cluster),
        is_connected=False,
        is_worker_alive=queries.is_worker_alive(),
    )


def _pairs(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(names[at : at + 4] for at in range(0, len(names), 4))


def _events_url(job: HpcJob) -> str:
    page = reverse(f"admin:{HpcJob._meta.app_label}_jobevent_changelist")
    return f"{page}?job__id__exact={job.pk}"


def _may_see(user: Any, model: str) -> bool:
    return bool(user.has_perm(f"{HpcJob._meta.app_label}.view_{model}"))

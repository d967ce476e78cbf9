"""The one writer of a job's status: lock the row, ask the table, write the history.

Rules:
- A move, its JobEvent and the facts that came with it are one transaction.
- Times are the database's own; a time that the cluster told counts within the job's life.
- Locks are taken in the order link, job: whoever needs both takes the link first.
- The table (multi-table inheritance!) is HpcJob's; the instances handed out are of HPC_JOB_CLASS.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from django.db import transaction
from django.db.models import Case, DateTimeField, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest, Least, Now
from django.utils.module_loading import import_string

from .. import conf, errors, lifecycle, queries, signals
from ..lifecycle import Event, JobStatus
from ..models import ClusterLink, HpcJob, JobEvent

logger = logging.getLogger(__name__)

TIME_COLUMNS = {
    JobStatus.PENDING: "job_pending_time",
    JobStatus.SUBMITTING: "job_submitting_time",
    JobStatus.SUBMITTED: "job_submitted_time",
    JobStatus.QUEUED: "job_queued_time",
    JobStatus.RUNNING: "job_running_time",
    **dict.fromkeys(lifecycle.FINAL, "job_finished_time"),
}
"""When a status was reached; deleting keeps the time of the end."""

KEEPS_DETAILS = (Event.DELETE, Event.CONFIRM_DELETE)
"""A deleted job still tells how it ended."""

UNBLOCKED: dict[str, Any] = {
    "blocked_reason": "",
    "blocked_detail": "",
    "blocked_since": None,
    "not_before": None,
}
"""The columns of a job, or of a link, that nothing holds back."""


@dataclass(frozen=True)
class Outcome:
    """What an event did. `is_legal`: it was recorded; `moved`: the status changed."""

    moved: bool
    status: JobStatus
    is_legal: bool = True


def job_class() -> type[HpcJob]:
    """The model named by HPC_JOB_CLASS."""
    return cast("type[HpcJob]", import_string(conf.get().job_class))


def load(job_id: int) -> HpcJob:
    """The job as an instance of HPC_JOB_CLASS, or of HpcJob if it was made as one."""
    kind = job_class()
    job = kind._base_manager.filter(pk=job_id).first()
    if job is None and kind is not HpcJob:
        job = HpcJob._base_manager.filter(pk=job_id).first()
    if job is None:
        raise errors.NotFound(f"There is no job {job_id}.")
    return job


def apply(
    job_id: int,
    event: Event,
    *,
    source: str,
    cause: str = "",
    run: int | None = None,
    happened_at: datetime | None = None,
    data: dict[str, Any] | None = None,
    updates: dict[str, Any] | None = None,
) -> Outcome:
    """Apply `event` to the job: the move, its history and `updates` (columns), or nothing at all.

    An illegal move changes nothing and is logged. `source`: user, admin, worker, sweep, cluster.
    """
    with transaction.atomic(savepoint=False):  # an illegal move raises nothing
        job = HpcJob._base_manager.select_for_update().filter(pk=job_id).first()
        if job is None:
            raise errors.NotFound(f"There is no job {job_id}.")
        after = lifecycle.next_status(job.status, event, known_run=job.run, run=run)
        if after is None:
            logger.warning(
                "illegal move ignored",
                extra={"job": job_id, "status": job.status.name, "event": event.value, "run": run},
            )
            return Outcome(moved=False, status=job.status, is_legal=False)
        changes = _changes(job.status, after, event, happened_at)
        if cause or (after is not job.status and event not in KEEPS_DETAILS):
            changes["job_details"] = cause
        changes |= {"run": max(run or 0, job.run)} | (updates or {})
        HpcJob._base_manager.filter(pk=job_id).update(**changes)
        _record(job_id, event, job.status, after, source, cause, changes["run"], happened_at, data)
    return Outcome(moved=job.status is not after, status=after)


def claim(job_id: int, epoch: int) -> HpcJob | None:
    """Claim a PENDING job for the link of `epoch`; only the winner gets the job."""
    return _claim(job_id, JobStatus.PENDING, epoch, queries.due())


def claim_again(job_id: int, epoch: int) -> HpcJob | None:
    """Claim a SUBMITTING job once more, if its claim is stale or of another epoch."""
    return _claim(job_id, JobStatus.SUBMITTING, epoch, queries.stale_claim(epoch))


def block(
    job_id: int, reason: str, detail: str, retry_at: datetime | Combinable | None = None
) -> None:
    """Park the job beside its status, with a reason a person can act on.

    `retry_at`: when it resumes by itself (a time, or an expression such as `in_future(60)`).
    """
    since = Case(
        When(blocked_reason=reason, blocked_since__isnull=False, then=F("blocked_since")),
        default=Now(),
    )
    rows = HpcJob._base_manager.filter(pk=job_id, job_status__in=lifecycle.AT_WORK)
    changed = rows.update(
        blocked_reason=reason,
        blocked_detail=detail,
        blocked_since=since,
        not_before=retry_at,
        changed_at=Now(),
    )
    if changed:
        logger.info("job blocked", extra={"job": job_id, "reason": reason})


def unblock(job_id: int) -> None:
    """Let the job go on: it is due at once."""
    HpcJob._base_manager.filter(pk=job_id).exclude(blocked_reason="", not_before=None).update(
        **UNBLOCKED, changed_at=Now()
    )


def make_due(job_id: int) -> None:
    """Have a blocked job tried at once; it stays blocked until that has told more."""
    HpcJob._base_manager.filter(pk=job_id).exclude(blocked_reason="").update(not_before=Now())


def defer(job_id: int, pause_s: float) -> None:
    """Let no sweep touch the job for `pause_s`."""
    HpcJob._base_manager.filter(pk=job_id).update(not_before=in_future(pause_s))


def in_future(pause_s: float) -> Combinable:
    """The database's clock plus `pause_s`, as an expression."""
    return Now() + timedelta(seconds=pause_s)


def _claim(job_id: int, status: JobStatus, epoch: int, condition: Q) -> HpcJob | None:
    after = lifecycle.TRANSITIONS[status, Event.CLAIM]
    is_ours = Exists(
        ClusterLink.objects.filter(pk=OuterRef("cluster"), epoch=epoch).exclude(holder="")
    )
    changes = _changes(status, after, Event.CLAIM, None)
    changes |= {
        "job_submitting_time": Now(),
        "attempt": F("attempt") + 1,
        "claimed_epoch": epoch,
        "job_details": "",
    }
    with transaction.atomic():
        rows: QuerySet[HpcJob] = HpcJob._base_manager.filter(pk=job_id, job_status=status)
        if not rows.filter(condition, is_ours).update(**changes):
            return None
        job = load(job_id)
        data = {"attempt": job.attempt, "epoch": epoch}
        _record(job_id, Event.CLAIM, status, after, "worker", "", job.run, None, data)
    return job


def _changes(
    before: JobStatus, after: JobStatus, event: Event, happened_at: datetime | None
) -> dict[str, Any]:
    changes: dict[str, Any] = {"job_status": after.value, "changed_at": Now()}
    if event is Event.CANCEL:
        changes["cancel_requested_at"] = Now()
    if before is not after:
        changes |= UNBLOCKED
        if after in TIME_COLUMNS:
            changes[TIME_COLUMNS[after]] = _time_of(happened_at)
    return changes


def _time_of(happened_at: datetime | None) -> Any:
    if happened_at is None:
        return Now()
    told = Value(happened_at, output_field=DateTimeField())
    return Greatest(Least(told, Now()), F("created_at"))


def _record(
    job_id: int,
    event: Event,
    before: JobStatus,
    after: JobStatus,
    source: str,
    cause: str,
    run: int,
    happened_at: datetime | None,
    data: dict[str, Any] | None,
) -> None:
    JobEvent.objects.create(
        job_id=job_id,
        event=event.value,
        status_before=before.value,
        status_after=after.value,
        source=source,
        cause=cause,
        run=run,
        happened_at=happened_at,
        data=data or {},
    )
    logger.info(
        "job event",
        extra={"job": job_id, "event": event.value, "before": before.name, "after": after.name},
    )
    if before is not after:
        transaction.on_commit(partial(_announce, job_id, before, after, event), robust=True)


def _announce(job_id: int, before: JobStatus, after: JobStatus, event: Event) -> None:
    if not signals.job_status_changed.receivers:
        return
    try:
        job = load(job_id)
    except errors.NotFound:
        return
    signals.job_status_changed.send_robust(
        sender=type(job), job=job, before=before, after=after, event=event
    )

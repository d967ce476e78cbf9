"""What a cluster's client reports, applied once, in order: events, and comparisons of open jobs.

Rules:
- Events and cursor are one transaction, under the lock of the link's row and its epoch.
- A link may only speak of its own cluster's jobs; whatever else it says is logged and passed over.
- Nothing that is told can break the batch: texts are cut and cleaned, numbers are bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DataError, IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from .. import errors, lifecycle, queries
from ..lifecycle import Event, JobStatus
from ..models import ClusterLink, HpcJob, OutboxCursor
from . import leases, moves, reports

logger = logging.getLogger(__name__)

UNKNOWN_DETAIL = (
    "The cluster's client does not know this job any more (was its state directory removed?)"
    " and is asked again every 10 minutes. Look for it by its name {tag} in the batch system, then"
    " look again or declare it lost."
)
ASK_AGAIN_S = 600.0
SOURCE = "cluster"
SIGHTINGS = (Event.QUEUE, Event.START)
"""The scheduler has shown the job."""


@dataclass(frozen=True)
class ClusterEvent:
    """An entry of a client's outbox, as its message has it; `at` in seconds since the epoch."""

    tag: str
    seq: int
    run: int
    kind: str
    at: float
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterJobState:
    """A job as the client knows it, as its message has it."""

    tag: str
    state: str
    scheduler_job_id: str = ""
    run: int = 0
    outcome: str = ""
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    at: float = 0.0


def cursor(cluster_id: int, outbox_id: str) -> int:
    """The last event committed of the outbox; 0: none."""
    rows = OutboxCursor.objects.filter(cluster=cluster_id, outbox_id=outbox_id)
    return rows.values_list("seq", flat=True).first() or 0


def receive(cluster_id: int, epoch: int, outbox_id: str, events: Sequence[ClusterEvent]) -> int:
    """Apply the events that are new, in one transaction with the cursor; returns the new cursor.

    Raises Invalid at a gap and LeaseLost if another holder took over; nothing is applied then.
    """
    with transaction.atomic():
        leases.locked(cluster_id, epoch)
        row, _ = OutboxCursor.objects.get_or_create(cluster_id=cluster_id, outbox_id=outbox_id)
        seq = row.seq
        for event in events:
            if event.seq <= seq:
                continue
            if event.seq != seq + 1:
                raise errors.Invalid(
                    f"The events of cluster {cluster_id} have a gap: {event.seq} after {seq}."
                )
            _receive_one(cluster_id, event)
            seq = event.seq
        OutboxCursor.objects.filter(pk=row.pk).update(seq=seq)
        ClusterLink.objects.filter(pk=cluster_id).update(last_heard_at=Now())
    return seq


def align(cluster_id: int, outbox_id: str, first_seq: int, last_seq: int) -> int:
    """Bring the cursor into the bounds of an outbox just greeted; returns link's catching_up_to.

    Events that lie outside, or in an outbox before a new one, are lost to us (one of the two sides
    went back to a backup): the jobs' states must come from the comparison, 0. Otherwise the
    events up to last_seq tell more.
    """
    row, is_new = OutboxCursor.objects.get_or_create(cluster_id=cluster_id, outbox_id=outbox_id)
    if first_seq - 1 <= row.seq <= last_seq and not is_new:
        return last_seq if row.seq < last_seq else 0
    seq = min(max(row.seq, first_seq - 1), last_seq)
    OutboxCursor.objects.filter(pk=row.pk).update(seq=seq)
    if row.seq != seq:
        logger.warning(
            "events lost with a backup: the comparison of open jobs tells the rest",
            extra={"cluster": cluster_id, "outbox": outbox_id, "before": row.seq, "after": seq},
        )
    return 0


def reconcile(
    cluster_id: int,
    epoch: int,
    states: Sequence[ClusterJobState],
    unknown: Sequence[str],
    extra: Sequence[str],
) -> list[str]:
    """Bring the server up to what the client knows of the open jobs.

    Returns tags that the client holds open though they have ended here: to be cancelled there.
    """
    with transaction.atomic():
        link = leases.locked(cluster_id, epoch)
        if not link.catching_up_to or cursor(cluster_id, link.outbox_id) >= link.catching_up_to:
            _catch_up(cluster_id, states)
        known = _blocked(cluster_id, [state.tag for state in states], queries.UNKNOWN_TO_CLUSTER)
        known.update(**moves.UNBLOCKED)
        _note_unknown(cluster_id, unknown)
        return _ended_here(cluster_id, extra)


def note_asked_again(
    cluster_id: int, epoch: int, known: Sequence[str], unknown: Sequence[str]
) -> None:
    """What came of asking the client about jobs that the cluster had told nothing of (tags).

    What it knows of them comes as events, in their order; if that is nothing, it says so anew.
    """
    with transaction.atomic():
        leases.locked(cluster_id, epoch)
        # One that was told anew to be without evidence meanwhile is due no more.
        due = _blocked(cluster_id, known, *queries.LOST_SIGHT).exclude(not_before=None)
        due.update(**moves.UNBLOCKED)
        _note_unknown(cluster_id, unknown)


def _receive_one(cluster_id: int, event: ClusterEvent) -> None:
    facts = {"cluster": cluster_id, "seq": event.seq, "kind": str(event.kind)[:64]}
    try:
        report = reports.read(event.kind, event.run, event.at, event.data)
        job_id = _job_id(cluster_id, event.tag)
        with transaction.atomic():
            _carry_out(job_id, report)
    except (errors.HpcError, DataError, IntegrityError) as error:
        logger.warning("event passed over", extra={**facts, "reason": str(error)})


def _carry_out(job_id: int, report: reports.Report) -> None:
    if report.event is not None:
        outcome = moves.apply(
            job_id,
            report.event,
            source=SOURCE,
            cause=report.cause,
            run=report.run,
            happened_at=report.happened_at,
            data=report.data,
            updates={**report.updates, "confirmed_at": Now()},
        )
        if not outcome.is_legal:
            return
        if report.event in SIGHTINGS:  # also where the status stays: seen again
            over = (*queries.LOST_SIGHT, lifecycle.NEEDS_ACTION)
            rows = HpcJob._base_manager.filter(pk=job_id, blocked_reason__in=over)
            rows.update(**moves.UNBLOCKED)
    if report.name:
        HpcJob._base_manager.filter(pk=job_id, name="").update(name=report.name)
    if report.blocked_reason:
        moves.block(job_id, report.blocked_reason, report.cause, _retry(report))


def _retry(report: reports.Report) -> Any:
    return moves.in_future(report.retry_s) if report.retry_s else None


def _job_id(cluster_id: int, tag: str) -> int:
    if not isinstance(tag, str) or not reports.TAG.fullmatch(tag):
        raise errors.Invalid("no tag of a job")
    rows = HpcJob._base_manager.filter(cluster=cluster_id, tag=tag)
    job_id = rows.values_list("pk", flat=True).first()
    if job_id is None:
        raise errors.NotFound(f"no job {tag} on this cluster")
    return job_id


def _catch_up(cluster_id: int, states: Sequence[ClusterJobState]) -> None:
    jobs = {
        job.tag: job
        for job in HpcJob._base_manager.filter(
            cluster=cluster_id, tag__in=_tags([state.tag for state in states])
        )
    }
    for state in states:
        job = jobs.get(state.tag)
        if job is None:
            continue
        try:
            report = reports.read_state(state)
        except errors.HpcError as error:
            logger.warning("state passed over", extra={"job": job.pk, "reason": str(error)})
            continue
        if report is not None and _tells_more(job, report):
            _carry_out(job.pk, report)


def _tells_more(job: HpcJob, report: reports.Report) -> bool:
    if report.event is None:
        return False
    after = lifecycle.next_status(job.status, report.event, known_run=job.run, run=report.run)
    if after is None:
        return False
    told_id = report.updates.get("scheduler_job_id", job.scheduler_job_id)
    return after is not job.status or told_id != job.scheduler_job_id


def _blocked(cluster_id: int, tags: Sequence[str], *reasons: str) -> QuerySet[HpcJob]:
    rows = HpcJob._base_manager.filter(cluster=cluster_id, tag__in=_tags(tags))
    return rows.filter(blocked_reason__in=reasons)


def _note_unknown(cluster_id: int, tags: Sequence[str]) -> None:
    rows = HpcJob._base_manager.filter(cluster=cluster_id, tag__in=_tags(tags))
    # Never heard of there: ask again, as if the claim were of an epoch long gone.
    rows.filter(job_status=JobStatus.SUBMITTING).update(claimed_epoch=0)
    in_scheduler = rows.filter(job_status__in=lifecycle.IN_SCHEDULER)
    known_so = in_scheduler.filter(blocked_reason=queries.UNKNOWN_TO_CLUSTER)
    known_so.update(not_before=moves.in_future(ASK_AGAIN_S))
    _block_unknown(in_scheduler, moves.in_future(ASK_AGAIN_S))
    # A cancel that is asked again finds the job by its id.
    cancelling = rows.filter(job_status=JobStatus.CANCELLING).exclude(scheduler_job_id="")
    _block_unknown(cancelling, None)


def _block_unknown(rows: QuerySet[HpcJob], retry_at: Combinable | None) -> None:
    for job in rows.exclude(blocked_reason=queries.UNKNOWN_TO_CLUSTER):
        detail = UNKNOWN_DETAIL.format(tag=job.tag)
        moves.block(job.pk, queries.UNKNOWN_TO_CLUSTER, detail, retry_at)


def _ended_here(cluster_id: int, tags: Sequence[str]) -> list[str]:
    ours = HpcJob._base_manager.filter(cluster=cluster_id, tag__in=_tags(tags))
    ended = list(ours.filter(job_status__in=lifecycle.FINAL).values_list("tag", flat=True))
    if tags:
        logger.warning(
            "the client holds jobs open that the server does not",
            extra={"cluster": cluster_id, "count": len(tags), "ended_here": len(ended)},
        )
    return ended


def _tags(tags: Sequence[str]) -> list[str]:
    return [tag for tag in tags if isinstance(tag, str) and reports.TAG.fullmatch(tag)]

"""Waiting for jobs: each change of state is one line, from the history, so that none is missed."""

from __future__ import annotations

import math
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

from ... import errors, lifecycle
from ...lifecycle import JobStatus
from ...models import HpcJob, JobEvent
from .terminal import Bar, Console

POLL_S = 0.2
LIMIT_S = 30 * 86400.0
DONE = lifecycle.FINAL | {JobStatus.DELETING, JobStatus.DELETED}


def seconds(text: str) -> float:
    """The value of `--limit`: every wait has one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def wait(
    console: Console, tell: Callable[[str], None], job_ids: Sequence[int], limit_s: float
) -> int:
    """Tell each change until all jobs have ended; 0 only if all completed."""
    deadline = time.monotonic() + limit_s
    seen = dict.fromkeys(job_ids, 0)
    reasons: dict[int, str] = {}
    bar = console.bar()
    while True:
        rows = {job.pk: job for job in HpcJob.objects.filter(pk__in=job_ids)}
        _tell_changes(tell, bar, seen)
        _tell_blocks(tell, bar, rows, reasons)
        ended = [job for job in rows.values() if job.status in DONE]
        if len(ended) == len(rows):
            break
        if time.monotonic() > deadline:
            bar.clear()
            raise errors.Timeout(
                f"{len(rows) - len(ended)} of {len(rows)} jobs have not ended within"
                f" {limit_s:g} s; they go on."
            )
        bar.show(_summary(rows), len(ended) / len(rows) if len(rows) > 1 else None)
        time.sleep(POLL_S)  # other processes write the rows; nothing tells us
    bar.clear()
    for job in rows.values():
        tell(f"job {job.pk}: {_end(job)}")
    return 0 if all(job.status is JobStatus.COMPLETED for job in rows.values()) else 1


def _tell_changes(tell: Callable[[str], None], bar: Bar, seen: dict[int, int]) -> None:
    events = JobEvent.objects.filter(job__in=seen, pk__gt=min(seen.values()))
    for event in events.order_by("pk"):
        if event.pk <= seen[event.job_id]:
            continue
        seen[event.job_id] = event.pk
        after = JobStatus(event.status_after)
        if event.status_before != event.status_after and after not in DONE:
            bar.clear()
            tell(f"job {event.job_id}: {after.label}")


def _tell_blocks(
    tell: Callable[[str], None], bar: Bar, rows: dict[int, HpcJob], reasons: dict[int, str]
) -> None:
    for job in rows.values():
        if job.blocked_reason and job.blocked_reason != reasons.get(job.pk):
            bar.clear()
            tell(f"job {job.pk}: {job.status.label}, held back: {job.blocked_detail}")
        reasons[job.pk] = job.blocked_reason


def _summary(rows: dict[int, HpcJob]) -> str:
    if len(rows) == 1:
        job = next(iter(rows.values()))
        return f"job {job.pk}: {job.status.label}"
    counts: dict[str, int] = {}
    for job in rows.values():
        counts[job.status.label] = counts.get(job.status.label, 0) + 1
    return ", ".join(f"{count} {label}" for label, count in counts.items())


def _end(job: HpcJob) -> str:
    words = [job.status.label]
    if job.signal is not None:
        words.append(f"signal {job.signal}")
    elif job.exit_code is not None:
        words.append(f"exit code {job.exit_code}")
    if job.status is not JobStatus.COMPLETED and job.job_details:
        words.append(job.job_details)
    return ", ".join(words)

"""From what a query says to what is known of a job; PURE.

Rules:
- Present, absent and unknown are three answers. Only ENDED, from the scheduler itself or from the
  exit record of a job that two good queries in a row did not know, ends a job.
- A job that the queue shows as not ended is not ended, whatever a record says.
- An unknown state is reported in the log and changes nothing.
- Absent or unknown for `lost_after_s` while queries work: one `blocked` event, `no_evidence`; and
  one of its state when it is seen again.
- A job that was cancelled by us and then ended is `cancelled`, unless it had ended before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from cluster_client import schedulers
from cluster_client.job_records import ENDED, QUEUED, RUNNING, Change, JobRecord, NewEvent
from cluster_client.schedulers import Sighting


def judge(
    record: JobRecord, sighting: Sighting, now: float, lost_after_s: float
) -> Optional[Change]:
    """What becomes of a job that is not final, after `sighting`; None: nothing."""
    if sighting.state == schedulers.ENDED:
        return _ended(record, sighting, now)
    if sighting.state == schedulers.RUNNING:
        return _running(record, sighting)
    if sighting.state == schedulers.QUEUED:
        return _queued(record, sighting)
    return _missing(record, sighting, now, lost_after_s)


def _seen(record: JobRecord) -> JobRecord:
    return replace(record, missing_since=0.0, is_blocked=False)


def _running(record: JobRecord, sighting: Sighting) -> Optional[Change]:
    run = max(record.run, sighting.run)
    if record.state == RUNNING and run == record.run and not record.is_blocked:
        return _changed(record, _seen(record))
    seen = replace(_seen(record), state=RUNNING, run=run, scheduler_state=sighting.words)
    return Change(seen, (NewEvent("running"),))


def _queued(record: JobRecord, sighting: Sighting) -> Optional[Change]:
    run = max(record.run, sighting.run)
    if record.state == RUNNING:  # requeued: the server takes it only with a new run
        run = max(run, record.run + 1)
    elif _is_known_queued(record, sighting, run):
        return _changed(record, _seen(record))
    seen = replace(
        _seen(record), state=QUEUED, run=run, reason=sighting.reason, scheduler_state=sighting.words
    )
    return Change(seen, (NewEvent("queued", {"reason": sighting.reason}),))


def _is_known_queued(record: JobRecord, sighting: Sighting, run: int) -> bool:
    is_same = record.reason == sighting.reason and run == record.run
    return record.state == QUEUED and is_same and not record.is_blocked


def _ended(record: JobRecord, sighting: Sighting, now: float) -> Change:
    outcome, reason = sighting.outcome, sighting.reason
    # The record's clock has whole seconds: an end in the second of the signal is due to it.
    is_before = 0 < sighting.ended_at < int(record.cancel_sent_at)
    if record.cancel_sent_at and not is_before:
        outcome, reason = "cancelled", "cancelled on request"
    ended = replace(
        _seen(record),
        state=ENDED,
        run=max(record.run, sighting.run),
        outcome=outcome,
        exit_code=sighting.exit_code,
        signal=sighting.signal,
        reason=reason,
        scheduler_state=sighting.words,
    )
    return Change(ended, (end_event(ended, sighting.ended_at or now),))


def end_event(record: JobRecord, at: float) -> NewEvent:
    """The event of the end that `record` tells."""
    data = {
        "outcome": record.outcome,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "reason": record.reason,
        "scheduler_state": record.scheduler_state,
    }
    return NewEvent("ended", data, at=at)


def _missing(
    record: JobRecord, sighting: Sighting, now: float, lost_after_s: float
) -> Optional[Change]:
    if not record.missing_since:
        return Change(replace(record, missing_since=now))
    if record.is_blocked or now - record.missing_since < lost_after_s:
        return None
    said = f"says {sighting.words!r}" if sighting.words else "does not know it"
    message = (
        f"The scheduler {said} ({record.scheduler_job_id}) since"
        f" {now - record.missing_since:.0f} s, and there is no exit record. {sighting.reason}"
    ).strip()
    data = {"reason": "no_evidence", "message": message}
    return Change(replace(record, is_blocked=True), (NewEvent("blocked", data),))


def _changed(before: JobRecord, after: JobRecord) -> Optional[Change]:
    return Change(after) if after != before else None

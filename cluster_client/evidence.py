"""From what a query says to what is known of a job; PURE.

Rules:
- Present, absent and unknown are three answers. Only ENDED, from the scheduler itself or from the
  exit record of a job that two good queries in a row did not know, ends a job.
- A job that the queue shows as not ended is not ended, whatever a record says.
- An unknown state is reported in the log and changes nothing.
- Absent or unknown for `lost_after_s` while queries work: one `blocked` event, `no_evidence`; and
  one of its state when it is seen again.
- A job that was cancelled by us and then ended is `cancelled`, unless it had ended before, or the
  scheduler itself tells cancels from other ends.
- What the accounting says of an end counts more than the queue; an exit record only makes its exit
  code exact.
- What a job used is an event of its own, with its end or later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from cluster_client import schedulers, wrapper
from cluster_client.job_records import ENDED, QUEUED, RUNNING, Change, JobRecord, NewEvent
from cluster_client.schedulers import Sighting


def judge(
    record: JobRecord,
    sighting: Sighting,
    now: float,
    lost_after_s: float,
    has_accounting: bool = False,
) -> Optional[Change]:
    """What becomes of a job that is not final, after `sighting`; None: nothing."""
    if sighting.state == schedulers.ENDED:
        return _ended(record, sighting, now, has_accounting)
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
    if record.state == RUNNING and sighting.is_array:  # between two of its tasks
        return _running(record, sighting)
    if record.state == RUNNING:  # requeued: the server takes it only with a new run
        run = max(run, record.run + 1)
    elif _is_known_queued(record, sighting, run):
        return _changed(record, _seen(record))
    seen = replace(
        _seen(record), state=QUEUED, run=run, reason=sighting.reason, scheduler_state=sighting.words
    )
    data: dict[str, object] = {"reason": sighting.reason}
    if sighting.needs_action:
        data["needs_action"] = True
    return Change(seen, (NewEvent("queued", data),))


def _is_known_queued(record: JobRecord, sighting: Sighting, run: int) -> bool:
    is_same = record.reason == sighting.reason and run == record.run
    return record.state == QUEUED and is_same and not record.is_blocked


def _ended(record: JobRecord, sighting: Sighting, now: float, has_accounting: bool) -> Change:
    outcome, reason = sighting.outcome, sighting.reason
    if _is_ours(record, sighting):
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
        is_accounting_due=has_accounting and sighting.usage is None,
    )
    end = end_event(ended, sighting.ended_at or now)
    return Change(ended, (end, *_accounting(sighting)))


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


def _is_ours(record: JobRecord, sighting: Sighting) -> bool:
    """Whether the end is due to our cancel."""
    if not record.cancel_sent_at:
        return False
    if sighting.knows_cancel:
        return sighting.outcome == "cancelled"
    # The record's clock has whole seconds: an end in the second of the signal is due to it.
    is_before = 0 < sighting.ended_at < int(record.cancel_sent_at)
    return not is_before


def _accounting(sighting: Sighting) -> tuple[NewEvent, ...]:
    if sighting.usage is None:
        return ()
    data = {name: value for name, value in vars(sighting.usage).items() if value is not None}
    return (NewEvent("accounting", data),)


def accounted(record: JobRecord, sighting: Sighting) -> Optional[Change]:
    """A job that has ended, and whose accounting comes now; it changes nothing else."""
    if not record.is_accounting_due or sighting.usage is None:
        return None
    return Change(replace(record, is_accounting_due=False), _accounting(sighting))


def with_accounting(seen: Sighting, told: Sighting) -> Sighting:
    """What the queue has shown of a job that, says the accounting, has ended."""
    if seen.state == schedulers.ABSENT:
        return told
    if seen.state != schedulers.ENDED:
        return seen
    if told.is_array:  # some of its tasks may not have arrived there yet, or have left the queue
        return told if told.tasks >= seen.tasks else replace(seen, is_provisional=True)
    if seen.is_exact:
        told = replace(
            told, exit_code=seen.exit_code, signal=seen.signal, is_exact=True,
            reason=seen.reason if told.outcome == seen.outcome else told.reason,
        )  # fmt: skip
    return replace(told, run=max(seen.run, told.run))


def is_in_need_of_record(seen: Sighting) -> bool:
    """Whether the wrapper's records may tell more of this end than the scheduler does."""
    if seen.state != schedulers.ENDED:
        return False
    if seen.is_array and seen.usage is None:
        return True  # without an accounting, tasks that ended early have left the queue
    is_open = not seen.is_exact or seen.exit_code == wrapper.REFUSED_STATUS
    return seen.outcome == "failed" and is_open


def with_record(seen: Sighting, recorded: Optional[Sighting], refusal: str) -> Sighting:
    """An end told by the scheduler, refined by what the wrapper has written.

    `refusal`: why it did not start the script; "" if it did, or told nothing.
    """
    run = max(seen.run, recorded.run) if recorded else seen.run
    if seen.is_array and seen.outcome == "completed" and recorded:
        return replace(recorded, run=run, words=seen.words, knows_cancel=seen.knows_cancel)
    if seen.outcome == "failed" and seen.exit_code == wrapper.REFUSED_STATUS and refusal:
        return replace(seen, run=run, outcome="refused", reason=refusal)
    if recorded is None or seen.outcome != "failed" or seen.is_exact:
        return replace(seen, run=run)
    if _status(recorded) % 128 != _status(seen) % 128:
        return replace(seen, run=run)
    return replace(
        seen, run=run, exit_code=recorded.exit_code, signal=recorded.signal,
        reason=seen.reason if seen.is_array else recorded.reason, is_exact=True,
    )  # fmt: skip


def _status(sighting: Sighting) -> int:
    return 128 + sighting.signal if sighting.signal else sighting.exit_code or 0


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

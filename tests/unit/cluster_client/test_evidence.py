from __future__ import annotations

from dataclasses import replace

import pytest

from cluster_client import evidence, schedulers
from cluster_client.job_records import ENDED, QUEUED, RUNNING, SUBMITTED, JobRecord
from cluster_client.schedulers import Sighting

NOW = 1_000_000.5
DAY_S = 86400.0
SUBMITTED_JOB = JobRecord("j" + "a" * 14, state=SUBMITTED, scheduler_job_id="7")
RUNNING_JOB = replace(SUBMITTED_JOB, state=RUNNING)


def judge(record, sighting, now=NOW):
    return evidence.judge(record, sighting, now, DAY_S)


def kinds(change):
    return [event.kind for event in change.events]


def test_running_is_told_once():
    change = judge(SUBMITTED_JOB, Sighting(schedulers.RUNNING))
    assert (change.record.state, kinds(change)) == (RUNNING, ["running"])
    assert judge(change.record, Sighting(schedulers.RUNNING)) is None


def test_a_new_reason_to_wait_is_told():
    change = judge(SUBMITTED_JOB, Sighting(schedulers.QUEUED, reason="Priority"))
    assert change.events[0].data == {"reason": "Priority"}
    assert judge(change.record, Sighting(schedulers.QUEUED, reason="Priority")) is None
    held = judge(change.record, Sighting(schedulers.QUEUED, reason="JobHeldUser"))
    assert held.events[0].data == {"reason": "JobHeldUser"}


def test_a_requeued_job_is_queued_with_a_higher_run():
    change = judge(RUNNING_JOB, Sighting(schedulers.QUEUED))
    assert (change.record.state, change.record.run) == (QUEUED, 1)
    again = judge(change.record, Sighting(schedulers.RUNNING, run=1))
    assert (again.record.state, again.record.run, kinds(again)) == (RUNNING, 1, ["running"])


@pytest.mark.parametrize("state", [schedulers.RUNNING, schedulers.QUEUED])
def test_a_job_told_to_be_without_evidence_is_told_again_when_it_is_seen(state):
    known = judge(SUBMITTED_JOB, Sighting(state)).record
    seen = judge(replace(known, is_blocked=True, missing_since=1.0), Sighting(state))
    assert kinds(seen) == [state]
    assert (seen.record.is_blocked, seen.record.missing_since) == (False, 0.0)
    assert judge(seen.record, Sighting(state)) is None


def test_an_end_carries_code_signal_and_reason():
    seen = schedulers.sighting_of_exit(137, NOW - 3, words="ended")
    change = judge(RUNNING_JOB, seen)
    assert change.record.state == ENDED
    assert change.events[0].at == NOW - 3
    assert change.events[0].data == {
        "outcome": "failed",
        "exit_code": None,
        "signal": 9,
        "reason": "ended by signal 9",
        "scheduler_state": "ended",
    }


@pytest.mark.parametrize("state", [schedulers.ABSENT, schedulers.UNKNOWN, "a word nobody knows"])
def test_what_is_absent_or_unknown_is_never_ended(state):
    change = judge(RUNNING_JOB, Sighting(state, words="WHATEVER"))
    assert (change.record.state, change.events) == (RUNNING, ())
    assert change.record.missing_since == NOW
    assert judge(change.record, Sighting(state), NOW + DAY_S - 1) is None


def test_a_day_without_evidence_is_told_once_and_forgotten_when_the_job_is_seen():
    missing = judge(RUNNING_JOB, Sighting(schedulers.ABSENT)).record
    blocked = judge(missing, Sighting(schedulers.ABSENT), NOW + DAY_S)
    assert kinds(blocked) == ["blocked"]
    assert blocked.events[0].data["reason"] == "no_evidence"
    assert judge(blocked.record, Sighting(schedulers.ABSENT), NOW + 2 * DAY_S) is None
    seen = judge(blocked.record, Sighting(schedulers.RUNNING))
    assert (seen.record.missing_since, seen.record.is_blocked) == (0.0, False)
    assert kinds(seen) == ["running"]


def test_a_cancelled_job_is_cancelled_unless_it_had_ended_before():
    cancelled = replace(RUNNING_JOB, cancel_sent_at=NOW)
    within = schedulers.sighting_of_exit(143, NOW - 0.3, words="ended")
    assert judge(cancelled, within).record.outcome == "cancelled"
    before = schedulers.sighting_of_exit(0, NOW - 3, words="ended")
    assert judge(cancelled, before).record.outcome == "completed"
    unknown_time = schedulers.sighting_of_exit(0, 0.0, words="ended")
    assert judge(cancelled, unknown_time).record.outcome == "cancelled"


@pytest.mark.parametrize(
    ("status", "exit_code", "signal", "outcome"),
    [
        (0, 0, None, "completed"),
        (3, 3, None, "failed"),
        (128, 128, None, "failed"),
        (129, None, 1, "failed"),
        (192, None, 64, "failed"),
        (193, 193, None, "failed"),
        (255, 255, None, "failed"),
    ],
)
def test_an_exit_status_is_a_code_or_128_and_a_signal(status, exit_code, signal, outcome):
    seen = schedulers.sighting_of_exit(status, 1.0, words="")
    assert (seen.exit_code, seen.signal, seen.outcome) == (exit_code, signal, outcome)

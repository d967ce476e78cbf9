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
    sighting = Sighting(schedulers.QUEUED, reason="JobHeldUser", needs_action=True)
    held = judge(change.record, sighting)
    assert held.events[0].data == {"reason": "JobHeldUser", "needs_action": True}


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


def test_a_scheduler_that_tells_cancels_is_believed():
    cancelled = replace(RUNNING_JOB, cancel_sent_at=NOW - 5)
    own = Sighting(schedulers.ENDED, outcome="completed", exit_code=0, knows_cancel=True)
    assert judge(cancelled, own).record.outcome == "completed"
    ours = Sighting(schedulers.ENDED, outcome="cancelled", reason="cancelled", knows_cancel=True)
    assert judge(cancelled, ours).record.reason == "cancelled on request"
    assert judge(RUNNING_JOB, ours).record.reason == "cancelled"


def test_an_array_whose_next_tasks_wait_was_not_requeued():
    waiting = Sighting(schedulers.QUEUED, tasks=2)
    assert judge(RUNNING_JOB, waiting) is None
    assert judge(SUBMITTED_JOB, waiting).record.state == QUEUED


def test_what_a_job_used_comes_with_its_end_or_later():
    end = Sighting(schedulers.ENDED, outcome="completed", exit_code=0)
    usage = schedulers.Usage(elapsed_s=3.0, cpu_s=1.5)
    now = evidence.judge(RUNNING_JOB, replace(end, usage=usage), NOW, DAY_S, has_accounting=True)
    assert kinds(now) == ["ended", "accounting"]
    assert now.events[1].data == {"elapsed_s": 3.0, "cpu_s": 1.5}
    assert not now.record.is_accounting_due
    later = evidence.judge(RUNNING_JOB, end, NOW, DAY_S, has_accounting=True)
    assert kinds(later) == ["ended"]
    assert later.record.is_accounting_due
    assert evidence.accounted(later.record, end) is None
    told = evidence.accounted(later.record, replace(end, usage=usage))
    assert kinds(told) == ["accounting"]
    assert evidence.accounted(told.record, replace(end, usage=usage)) is None
    assert not judge(RUNNING_JOB, end).record.is_accounting_due


def test_the_accounting_never_ends_what_the_queue_shows_at_work():
    told = Sighting(schedulers.ENDED, outcome="node_fail")
    for state in (schedulers.QUEUED, schedulers.RUNNING, schedulers.UNKNOWN):
        seen = Sighting(state)
        assert evidence.with_accounting(seen, told) is seen


def test_the_accounting_knows_the_cause_and_the_queue_the_exit_code():
    seen = Sighting(
        schedulers.ENDED, run=2, outcome="failed", exit_code=1, reason="a", is_provisional=True
    )
    told = Sighting(
        schedulers.ENDED, outcome="out_of_memory", exit_code=1, reason="b", is_exact=False
    )
    merged = evidence.with_accounting(seen, told)
    assert (merged.outcome, merged.reason, merged.run) == ("out_of_memory", "b", 2)
    assert (merged.is_exact, merged.is_provisional) == (True, False)


def test_an_array_of_which_tasks_are_missing_in_the_accounting_waits_for_them():
    seen = Sighting(schedulers.ENDED, outcome="failed", exit_code=3, tasks=4)
    told = Sighting(schedulers.ENDED, outcome="completed", exit_code=0, tasks=3)
    assert evidence.with_accounting(seen, told) == replace(seen, is_provisional=True)
    assert evidence.with_accounting(seen, replace(told, tasks=4)).outcome == "completed"


def test_an_array_of_which_failed_tasks_have_left_the_queue_has_failed():
    left = Sighting(schedulers.ENDED, outcome="completed", exit_code=0, tasks=2)
    assert evidence.is_in_need_of_record(left)
    records = schedulers.array_sighting(
        [schedulers.sighting_of_exit(code, NOW, "") for code in (0, 4)]
    )
    told = evidence.with_record(left, records, "")
    assert (told.outcome, told.exit_code) == ("failed", 4)


def test_a_refusal_of_the_wrapper_is_no_failure_of_the_script():
    seen = Sighting(schedulers.ENDED, outcome="failed", exit_code=122)
    assert evidence.with_record(seen, None, "no interpreter").outcome == "refused"
    assert evidence.with_record(seen, None, "").outcome == "failed"

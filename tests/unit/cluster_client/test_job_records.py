from __future__ import annotations

from dataclasses import replace

import pytest

from cluster_client.job_records import (
    ENDED,
    REJECTED,
    SUBMITTED,
    TOMBSTONE_S,
    Change,
    Contents,
    JobRecord,
    NewEvent,
    fields_of,
    record_of,
)

TAG = "j" + "a" * 14
OTHER = "j" + "b" * 14


@pytest.fixture
def contents():
    made = Contents()
    made.outbox_id = "one"
    return made


def put(contents, record, *kinds, at=100.0):
    change = Change(record, tuple(NewEvent(kind) for kind in kinds))
    contents.apply(contents.job_entry(change, at, contents.last_seq + 1))


def copied(contents, now=100.0):
    copy = Contents()
    for entry in contents.entries(now):
        copy.apply(entry)
    return copy


def test_a_record_survives_its_json_form_and_unknown_fields():
    record = JobRecord(TAG, attempt=2, exit_code=0, state=ENDED, outcome="completed")
    assert record_of({**fields_of(record), "of_a_newer_version": 1}) == record


def test_events_are_numbered_without_a_gap(contents):
    put(contents, JobRecord(TAG), "submitted", "running")
    put(contents, JobRecord(OTHER), "submitted")
    assert [event.seq for event in contents.events] == [1, 2, 3]
    assert (contents.first_seq, contents.last_seq) == (1, 3)


def test_an_end_becomes_a_tombstone_only_when_its_own_event_is_acknowledged(contents):
    put(contents, JobRecord(TAG, state=SUBMITTED), "submitted")
    put(contents, JobRecord(TAG, state=ENDED), "ended")
    contents.apply({"t": "ack", "seq": 1, "at": 5.0})
    assert TAG in contents.jobs
    contents.apply({"t": "ack", "seq": 2, "at": 6.0})
    assert TAG not in contents.jobs
    assert contents.tombstones[TAG].acknowledged_at == 6.0
    assert (contents.first_seq, contents.last_seq) == (3, 2)


def test_an_acknowledgement_of_the_past_or_of_what_was_never_sent_changes_nothing_else(contents):
    put(contents, JobRecord(TAG), "submitted")
    contents.apply({"t": "ack", "seq": 99, "at": 5.0})
    contents.apply({"t": "ack", "seq": 1, "at": 5.0})
    assert (contents.first_seq, contents.last_seq) == (2, 1)
    put(contents, JobRecord(TAG), "running")
    assert contents.events[0].seq == 2


def test_a_copy_made_of_its_entries_is_the_same(contents):
    put(contents, JobRecord(TAG, state=ENDED), "submitted", "ended")
    put(contents, JobRecord(OTHER, state=SUBMITTED), "submitted")
    contents.apply({"t": "ack", "seq": 2, "at": 100.0})
    contents.apply({"t": "epoch", "epoch": 4})
    assert vars(copied(contents)) == vars(contents)


def test_a_tombstone_is_kept_for_400_days_and_an_unacknowledged_end_for_ever(contents):
    put(contents, JobRecord(TAG, state=ENDED), "ended")
    put(contents, JobRecord(OTHER, state=ENDED), "ended")
    contents.apply({"t": "ack", "seq": 1, "at": 100.0})
    assert TAG in copied(contents, 100.0 + TOMBSTONE_S).tombstones
    later = copied(contents, 101.0 + TOMBSTONE_S)
    assert (list(later.tombstones), list(later.jobs)) == ([], [OTHER])
    assert [event.tag for event in later.events] == [OTHER]


def test_a_new_outbox_numbers_what_is_unacknowledged_from_one(contents):
    put(contents, JobRecord(OTHER), "submitted")
    put(contents, JobRecord(TAG, state=ENDED), "ended")
    contents.apply({"t": "ack", "seq": 1, "at": 5.0})
    contents.apply({"t": "outbox", "outbox_id": "two"})
    assert [(event.outbox_id, event.seq) for event in contents.events] == [("two", 1)]
    contents.apply({"t": "ack", "seq": 1, "at": 6.0})
    assert TAG in contents.tombstones


def test_a_rejected_job_that_is_tried_again_is_open_again(contents):
    put(contents, JobRecord(TAG, state=REJECTED), "rejected")
    contents.apply({"t": "ack", "seq": 1, "at": 5.0})
    tombstone = contents.tombstones[TAG]
    put(contents, replace(JobRecord(TAG), attempt=tombstone.attempt + 1))
    assert TAG in contents.jobs
    assert TAG not in contents.tombstones

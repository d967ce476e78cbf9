from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace

import pytest

from cluster_client import errors
from cluster_client.filesystem import AppendFile, Filesystem
from cluster_client.job_records import ENDED, SUBMITTED, Change, JobRecord, NewEvent
from cluster_client.job_store import JobStore

TAG = "j" + "a" * 14
OTHER = "j" + "b" * 14


class FailingFilesystem(Filesystem):
    """Fails with `error` in the operation named, as long as it is set."""

    def __init__(self):
        self.failing = ""
        self.error = errno.ENOSPC
        self.syncs = 0

    def fail(self, operation, path):
        if self.failing == operation:
            raise errors.NotStored(path, OSError(self.error, os.strerror(self.error)))

    def create_append(self, path, first):
        self.fail("create", path)
        file = super().create_append(path, first)
        return FailingFile(self, file)

    def write_durably(self, path, data, mode=0o600):
        self.fail("replace", path)
        super().write_durably(path, data, mode)


class FailingFile(AppendFile):
    def __init__(self, owner, file):
        self._owner = owner
        self._file = file
        self.path = file.path

    def append(self, data):
        if self._owner.failing == "append":
            self._file.append(data[: len(data) // 2])  # torn, as a full disk leaves it
        self._owner.fail("append", self.path)
        self._owner.syncs += 1
        self._file.append(data)

    def close(self):
        self._owner.fail("close", self.path)
        self._file.close()


@pytest.fixture
def fs():
    return FailingFilesystem()


@pytest.fixture
def opened(fs, tmp_path):
    def open_store(generation=1, directory=tmp_path):
        store = JobStore(fs, str(directory), generation)
        store.load()
        return store

    return open_store


def contents(store):
    return {
        "jobs": store.jobs,
        "tombstones": store.tombstones,
        "events": store.events_after(0),
        "epoch": store.epoch,
        "outbox": (store.outbox_id, store.first_seq, store.last_seq),
    }


def fill(store):
    store.put(JobRecord(TAG, attempt=1))
    store.put_with_event(JobRecord(TAG, attempt=1, state=SUBMITTED), "submitted", {"a": "é"})
    store.put_with_event(JobRecord(OTHER, state=ENDED), "ended", {"outcome": "completed"})
    store.record_epoch(5)
    store.acknowledge(1)


@pytest.mark.parametrize("generation", [1, 2, 9])
def test_a_restart_and_a_successor_know_what_was_known(opened, generation):
    store = opened()
    fill(store)
    known = contents(store)
    assert contents(opened(generation)) == known


def test_a_store_torn_at_any_byte_holds_what_came_before_and_goes_on(opened, tmp_path):
    store = opened()
    steps = [contents(store)]
    sizes = [0]
    journal = tmp_path / "gen-1" / "journal"
    for record in (JobRecord(TAG), JobRecord(TAG, state=SUBMITTED), JobRecord(OTHER)):
        store.put_with_event(record, "submitted", {})
        steps.append(contents(store))
        sizes.append(journal.stat().st_size)
    data = journal.read_bytes()
    for cut in range(len(data) + 1):
        journal.write_bytes(data[:cut])
        torn = opened(2, tmp_path)
        whole = max(count for count, size in enumerate(sizes) if size <= cut)
        assert contents(torn) == steps[whole]
        for name in ("journal", "snapshot"):
            (tmp_path / "gen-2" / name).unlink()
        (tmp_path / "gen-2").rmdir()


def test_a_restart_after_a_torn_tail_loses_nothing_that_follows(opened, tmp_path):
    opened().put(JobRecord(TAG))
    with (tmp_path / "gen-1" / "journal").open("ab") as file:
        file.write(b'deadbeef {"n":')
    store = opened()
    store.put(JobRecord(OTHER))
    assert set(opened().jobs) == {TAG, OTHER}


@pytest.mark.parametrize("operation", ["append", "create", "replace"])
def test_what_could_not_be_written_is_not_there_and_later_writes_are(opened, fs, operation):
    store = opened()
    store.put_with_event(JobRecord(TAG), "submitted", {})
    known = contents(store)
    fs.failing = "append"
    with pytest.raises(errors.NotStored) as caught:
        store.put_with_event(JobRecord(OTHER), "submitted", {})
    assert caught.value.reason == "no_space"
    fs.failing = operation
    with pytest.raises(errors.NotStored):
        store.put_with_event(JobRecord(OTHER), "submitted", {})
    assert contents(store) == known
    fs.failing = ""
    store.put_with_event(JobRecord(OTHER), "submitted", {})
    assert [event.seq for event in store.events_after(0)] == [1, 2]
    assert contents(opened(2)) == contents(store)


@pytest.mark.parametrize("operation", ["append", "create", "replace"])
def test_an_epoch_holds_in_memory_while_the_disk_is_full(opened, fs, operation):
    store = opened()
    store.record_epoch(5)
    fs.failing = "append"
    with pytest.raises(errors.NotStored):
        store.put(JobRecord(TAG))
    fs.failing = operation
    store.record_epoch(7)
    assert store.epoch == 7
    fs.failing = ""
    assert opened().epoch == 5
    store.put(JobRecord(TAG))
    assert opened().epoch == 7


def test_an_epoch_that_could_not_be_written_for_another_cause_is_not_taken(opened, fs):
    store = opened()
    fs.failing, fs.error = "append", errno.EIO
    with pytest.raises(errors.NotStored):
        store.record_epoch(7)
    assert store.epoch == 0


def test_a_step_that_raises_changes_nothing_and_stops_nobody_else(opened):
    store = opened()

    def refuse(record):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.update_many([(TAG, lambda _: Change(JobRecord(TAG))), (OTHER, refuse)])
    assert store.jobs == {}
    store.put(JobRecord(TAG))
    assert list(opened().jobs) == [TAG]


def test_steps_see_each_other(opened):
    store = opened()
    store.put(JobRecord(TAG))

    def count(record):
        return Change(replace(record, attempt=record.attempt + 1), (NewEvent("running"),))

    store.update_many([(TAG, count), (TAG, count)])
    threads = [threading.Thread(target=store.update, args=(TAG, count)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.jobs[TAG].attempt == 10
    assert [event.seq for event in store.events_after(0)] == list(range(1, 11))


def test_threads_that_write_at_once_share_an_fsync(opened, fs, monkeypatch):
    store = opened()
    gate = threading.Event()
    is_inside = threading.Event()
    append = FailingFile.append

    def slow(file, data):
        is_inside.set()
        gate.wait(10)
        append(file, data)

    monkeypatch.setattr(FailingFile, "append", slow)
    tags = ["j" + letter * 14 for letter in "abcdefgh"]
    threads = [threading.Thread(target=store.put, args=(JobRecord(tag),)) for tag in tags]
    threads[0].start()
    assert is_inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(store._waiting) < len(tags) - 1:
        gate.wait(0.001)
    before = fs.syncs
    gate.set()
    for thread in threads:
        thread.join()
    assert fs.syncs - before == 2
    assert set(opened().jobs) == set(tags)


def test_compaction_drops_no_unacknowledged_event(opened, monkeypatch, tmp_path):
    monkeypatch.setattr("cluster_client.job_store.COMPACT_ABOVE_BYTES", 1000)
    store = opened()
    for number in range(200):
        store.put_with_event(JobRecord(TAG, attempt=number), "running", {})
        if number == 100:
            store.acknowledge(50)
    assert (tmp_path / "gen-1" / "journal").stat().st_size < 200_000
    again = opened()
    assert [event.seq for event in again.events_after(0, 1000)] == list(range(51, 201))
    assert contents(again) == contents(store)


def test_an_id_that_the_predecessor_learned_late_is_taken_over(opened):
    old = opened(1)
    old.put(JobRecord(TAG, attempt=1))
    new = opened(2)
    old.put(JobRecord(TAG, attempt=1, state=SUBMITTED, scheduler_job_id="77"))
    assert new.jobs[TAG].scheduler_job_id == ""
    assert opened(3).jobs[TAG].scheduler_job_id == "77"


def test_only_the_newest_whole_generation_counts(opened, tmp_path):
    opened(1).put(JobRecord(TAG))
    (tmp_path / "gen-2").mkdir()
    (tmp_path / "gen-2" / "snapshot.abc.tmp").write_bytes(b"half")
    assert list(opened(3).jobs) == [TAG]


@pytest.mark.parametrize("before", [0, 1])
def test_starts_that_fail_on_a_full_disk_leave_the_store_as_it_was(opened, fs, tmp_path, before):
    for generation in range(1, before + 1):
        opened(generation).put(JobRecord(TAG))
    fs.failing = "replace"
    for generation in range(2, 9):
        with pytest.raises(errors.NotStored):
            opened(generation)
    fs.failing = ""
    store = opened(9)
    assert list(store.jobs) == [TAG][:before]
    assert store.outbox_id
    assert len(list(tmp_path.glob("gen-*"))) == 8 + before


def test_failed_starts_do_not_count_among_the_generations_that_are_kept(opened, tmp_path):
    opened(1)
    opened(2)
    for generation in (3, 4, 5, 6):
        (tmp_path / f"gen-{generation}").mkdir()
    opened(7)
    assert {"gen-1", "gen-2", "gen-7"} <= {path.name for path in tmp_path.glob("gen-*")}
    opened(8)
    assert sorted(path.name[4:] for path in tmp_path.glob("gen-*")) == list("2345678")


@pytest.mark.parametrize("name", ["snapshot", "journal"])
def test_a_damaged_generation_behind_failed_starts_is_not_taken_for_an_empty_store(
    opened, tmp_path, name
):
    (tmp_path / "gen-1").mkdir()
    (tmp_path / "gen-1" / name).write_bytes(b"garbage\n")
    for generation in (2, 3, 4, 5):
        (tmp_path / f"gen-{generation}").mkdir()
    with pytest.raises(errors.StoreDamaged):
        opened(6)


def test_old_generations_are_removed_but_for_two(opened, tmp_path):
    for generation in (1, 2, 3, 4, 5):
        opened(generation)
    assert sorted(path.name for path in tmp_path.glob("gen-*")) == ["gen-3", "gen-4", "gen-5"]


def test_a_store_without_a_whole_snapshot_is_not_taken_for_an_empty_one(opened, tmp_path):
    opened(1).put(JobRecord(TAG))
    (tmp_path / "gen-1" / "snapshot").write_bytes(b"garbage\n")
    with pytest.raises(errors.StoreDamaged):
        opened(2)


def test_waiting_for_events_ends_when_one_comes(opened):
    store = opened()
    assert not store.wait_for_events(0, 0.01)
    threading.Timer(0.05, lambda: store.put_with_event(JobRecord(TAG), "running", {})).start()
    assert store.wait_for_events(0, 10)


def test_a_guard_that_objects_keeps_events_out(fs, tmp_path):
    def object_():
        raise errors.Fenced("a newer one took over", 2)

    store = JobStore(fs, str(tmp_path), 1, guard=object_)
    store.load()
    store.put(JobRecord(TAG))
    with pytest.raises(errors.Fenced):
        store.put_with_event(JobRecord(TAG, state=SUBMITTED), "submitted", {})
    assert (store.jobs[TAG].state, store.last_seq) == ("submitting", 0)


def test_a_closed_store_takes_nothing_more(opened):
    store = opened()
    store.close()
    with pytest.raises(errors.ClientError):
        store.put(JobRecord(TAG))

"""A file system that is really full: a small tmpfs that only the engine and its jobs can see."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cluster_client.protocol import messages

from .conftest import submit_of, tag_of, wait_until

TAG = tag_of(0)


class Disk:
    """The tmpfs, reached through the engine's own root."""

    def __init__(self, directory):
        self.directory = directory
        self.inside = Path()

    def prefix(self):
        # Without root, another user namespace gives the right to mount.
        rights = [] if os.getuid() == 0 else ["--map-root-user"]
        mount = f'mount -t tmpfs -o size=512k none "{self.directory}" && exec "$@"'
        return ["unshare", "--mount", *rights, "sh", "-c", mount, "sh"]

    def enter(self, pid):
        self.inside = Path(f"/proc/{pid}/root{self.directory}")

    def fill(self):
        """Take the last byte."""
        with (self.inside / "filler").open("ab", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def exhaust(self, engine):
        """Fill it, and with small requests what was left of the journal's last block too."""
        self.fill()
        for number in range(100, 200):
            answer = engine.ask(messages.Cancel(tag_of(number)))
            if answer["type"] == "Error":
                return tag_of(number), answer
        raise AssertionError("the disk took everything")

    def free(self):
        (self.inside / "filler").unlink()


@pytest.fixture
def disk(tmp_path):
    directory = tmp_path / "disk"
    directory.mkdir()
    return Disk(directory)


@pytest.fixture
def engine(start_process, disk):
    started = start_process(
        prefix=disk.prefix(),
        state_directory=str(disk.directory / "state"),
        job_working_directory=str(disk.directory / "jobs"),
        poll_interval_s=0.5,
    )
    disk.enter(started.process.pid)
    return started


def test_nothing_is_submitted_on_a_full_disk_and_all_is_well_once_it_is_free(engine, disk, site):
    disk.fill()
    answer = engine.ask(submit_of(TAG, f"echo ran >>{site.ledger}"))
    assert (answer["type"], answer["reason"], answer["transient"]) == ("Rejected", "no_space", True)
    assert str(disk.directory) in answer["message"]
    assert "ENOSPC" in answer["message"]
    disk.free()
    answer = engine.ask(submit_of(TAG, f"echo ran >>{site.ledger}", attempt=2))
    assert answer["type"] == "Submitted"
    assert engine.wait(TAG)["outcome"] == "completed"
    assert site.ran() == ["ran"]


def test_an_end_that_could_not_be_stored_is_told_once_it_can(engine, disk, site):
    engine.ask(submit_of(TAG, f"while [ ! -e {site.directory}/go ]; do sleep 0.1; done; exit 5"))
    engine.wait(TAG, "running")
    disk.exhaust(engine)
    (site.directory / "go").touch()
    record = disk.inside / "jobs" / TAG / ".hpc" / "exit.-.0"
    wait_until(record.exists, what="the record, whose room was taken at the start")
    assert "ended" not in [kind for _, kind, _ in engine.events()]
    disk.free()
    assert engine.wait(TAG)["exit_code"] == 5
    seqs = [event["seq"] for event in engine.ask({"type": "events", "after": 0})]
    assert seqs == list(range(1, len(seqs) + 1))


def test_what_could_not_be_stored_is_answered_as_such_and_may_be_asked_again(engine, disk):
    tag, answer = disk.exhaust(engine)
    assert (answer["code"], answer["transient"]) == ("no_space", True)
    assert tag not in [told for told, _, _ in engine.events()]
    disk.free()
    assert engine.ask(messages.Cancel(tag))["type"] == "Done"
    assert [kind for told, kind, _ in engine.events() if told == tag] == ["rejected"]


def test_a_job_can_be_cancelled_on_a_full_disk(engine, disk):
    engine.ask(submit_of(TAG, "touch ready; sleep 60"))
    engine.wait(TAG, "running")
    disk.exhaust(engine)
    assert engine.ask(messages.Cancel(TAG))["code"] == "no_space"
    wait_until((disk.inside / "jobs" / TAG / ".hpc" / "exit.-.0").exists, what="the job's end")
    disk.free()
    assert engine.wait(TAG)["outcome"] == "cancelled"


def hello(epoch):
    return messages.Hello((1,), "test", 1, epoch=epoch)


def test_a_job_can_be_cancelled_on_a_full_disk_over_a_new_link(engine, disk, site):
    assert engine.ask(hello(5))["epoch"] == 5
    engine.ask(submit_of(TAG, "touch ready; sleep 60"))
    engine.wait(TAG, "running")
    disk.exhaust(engine)
    assert engine.ask(hello(7))["type"] == "Welcome"
    assert (engine.ask(hello(6))["code"], engine.ask(hello(6))["epoch"]) == ("stale_epoch", 7)
    assert engine.ask(messages.Compare((TAG, tag_of(1))))["unknown"] == [tag_of(1)]
    answer = engine.ask(submit_of(tag_of(2), f"echo ran >>{site.ledger}"))
    assert (answer["type"], answer["reason"]) == ("Rejected", "no_space")
    assert engine.ask(messages.Cancel(TAG))["code"] == "no_space"
    wait_until((disk.inside / "jobs" / TAG / ".hpc" / "exit.-.0").exists, what="the job's end")
    disk.free()
    assert engine.wait(TAG)["outcome"] == "cancelled"
    journal = disk.inside / "state" / "gen-1" / "journal"
    snapshot = disk.inside / "state" / "gen-1" / "snapshot"
    assert b'"epoch":7' in journal.read_bytes() + snapshot.read_bytes()
    assert site.ran() == []

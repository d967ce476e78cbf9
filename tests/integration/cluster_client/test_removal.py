from __future__ import annotations

import os
import subprocess

import pytest

from cluster_client import errors, removal
from cluster_client.protocol import messages

from .conftest import tag_of, wait_until

TAG = tag_of(0)
GONE = messages.Deleted(TAG, is_complete=True)


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "jobs"
    made.mkdir()
    return made


@pytest.fixture
def job(root):
    made = root / TAG
    made.mkdir()
    return made


def remove(root):
    return removal.remove(str(root), TAG)


def trash(root):
    return sorted(path.name for path in (root / ".trash").iterdir())


def test_all_of_the_directory_goes_and_nothing_else(root, job):
    (job / "a" / "b").mkdir(parents=True)
    (job / "a" / "b" / "file").write_text("x")
    os.mkfifo(job / "fifo")
    (root / tag_of(1)).mkdir()
    assert remove(root) == GONE
    assert remove(root) == GONE
    assert sorted(path.name for path in root.iterdir()) == [".trash", tag_of(1)]
    assert trash(root) == []


def test_a_root_that_does_not_exist_is_not_taken_for_an_empty_one(tmp_path):
    with pytest.raises(errors.NotStored, match="mounted"):
        remove(tmp_path / "nowhere")


def test_links_are_removed_and_never_followed(root, job, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (job / "link").symlink_to(outside)
    (job / "up").symlink_to("..")
    assert remove(root) == GONE
    assert (outside / "precious").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_is_refused(root, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "link":
        (root / TAG).symlink_to(outside)
    else:
        (root / TAG).write_text("x")
    with pytest.raises(errors.PathRefused):
        remove(root)
    assert os.path.lexists(root / TAG)


def test_a_trash_that_leads_elsewhere_is_refused(root, job, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / ".trash").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.PathRefused):
        remove(root)
    assert job.exists()


def test_a_large_tree_goes_in_slices_that_can_be_resumed(root, job, monkeypatch):
    monkeypatch.setattr(removal, "SLICE_ENTRIES", 50)
    for number in range(120):
        (job / f"f{number}").write_text("")
    first = remove(root)
    assert (first.is_complete, first.remaining) == (False, ())
    assert not job.exists()
    assert len(list((root / ".trash" / TAG).iterdir())) == 70
    assert not remove(root).is_complete
    assert remove(root) == GONE


def test_a_tree_deeper_than_any_path_goes(root, job):
    descriptor = os.open(job, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 10, dir_fd=descriptor)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    def is_gone():
        deleted = remove(root)
        assert deleted.remaining == ()
        return deleted.is_complete

    wait_until(is_gone)
    assert trash(root) == []


def test_names_that_are_no_text_go_too(root, job):
    descriptor = os.open(job, os.O_RDONLY)
    os.close(os.open(b"\xff\xfe", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    assert remove(root) == GONE


def test_directories_whose_rights_were_taken_away_go_too(root, job):
    (job / "locked").mkdir()
    (job / "locked" / "file").write_text("x")
    (job / "locked").chmod(0)
    assert remove(root) == GONE


def test_another_mount_is_left_alone_and_told(root, job):
    """In a mount namespace of its own; another user namespace gives the right where we lack it."""
    (job / "mounted").mkdir()
    program = (
        "import sys; from cluster_client import removal;"
        "print(removal.remove(sys.argv[1], sys.argv[2]).remaining)"
    )
    script = (
        f'mount -t tmpfs none "{job}/mounted" && touch "{job}/mounted/precious" &&'
        f' "$0" -c "$1" "{root}" {TAG}; ls "{root}/.trash/{TAG}/mounted"'
    )
    rights = [] if os.getuid() == 0 else ["--map-root-user"]
    ended = subprocess.run(
        ["unshare", "--mount", *rights, "sh", "-c", script, os.sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "mounted: a mount point" in ended.stdout, ended
    assert "precious" in ended.stdout
    assert remove(root) == GONE


def test_a_job_that_runs_is_not_deleted_and_one_that_ended_is(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "touch ready; sleep 60")
    wait_until((site.jobs / TAG / "ready").exists)
    assert engine.engine.handle(messages.Delete(TAG)).code == "not_ended"
    engine.engine.handle(messages.Cancel(TAG))
    engine.wait(TAG)
    assert engine.engine.handle(messages.Delete(TAG)) == GONE
    assert engine.engine.handle(messages.Delete(TAG)) == GONE
    assert not (site.jobs / TAG).exists()


def test_a_directory_that_another_id_claims_is_left_alone(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "true")
    engine.wait(TAG)
    (site.jobs / TAG / ".hpc" / "claim").write_text(f"local:1.1.{'0' * 36}\n")
    assert engine.engine.handle(messages.Delete(TAG)).code == "path_refused"
    assert (site.jobs / TAG).exists()


def test_without_a_record_only_a_claimed_directory_whose_job_is_over_goes(start_engine, site):
    engine = start_engine()
    engine.submit(TAG, "touch ready; sleep 60")
    wait_until((site.jobs / TAG / "ready").exists)
    (site.jobs / tag_of(1)).mkdir()
    engine.engine.stop()
    site.state.rename(site.directory / "lost")
    new = start_engine()
    assert new.engine.handle(messages.Delete(TAG)).code == "not_ended"
    assert new.engine.handle(messages.Delete(tag_of(1))).code == "path_refused"
    assert new.engine.handle(messages.Delete(tag_of(2))).is_complete
    site.clean()
    assert new.engine.handle(messages.Delete(TAG)) == GONE

"""An upload that the file system refuses late, and the rights of what is put in place."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from cluster_client import errors, writing
from cluster_client.protocol import messages

TAG = "jaaaaaaaaaaaaaa"
DATA = b"data"
FINISH = messages.Finish(len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def job(tmp_path: Path) -> Path:
    directory = tmp_path / TAG
    directory.mkdir()
    return directory


def begin(job: Path, name: str = "file") -> writing.Upload:
    return writing.Upload(str(job.parent), messages.Put("t", TAG, name, len(DATA)))


def put(job: Path, name: str = "file") -> messages.Stored:
    upload = begin(job, name)
    upload.write(DATA)
    return upload.finish(FINISH)


@pytest.mark.parametrize("call", ["fsync", "close", "write", "rename", "fchmod"])
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_whatever_call_fails_is_told_and_leaves_nothing(
    job: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    (job / "file").write_text("old")
    upload = begin(job)
    real = getattr(os, call)

    def fails(*arguments: object, **options: object) -> None:
        monkeypatch.setattr(os, call, real)
        if call == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(errors.NotStored, match=errno.errorcode[number]) as caught:
        upload.write(DATA)
        upload.finish(FINISH)
    upload.abort()
    assert caught.value.reason == ("not_stored" if number == errno.EIO else "no_space")
    assert [path.name for path in job.iterdir()] == ["file"]
    assert (job / "file").read_text() == "old"


def test_the_file_is_on_the_disk_before_it_is_in_its_place_and_then_its_name_is(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fsync

    def fsync(handle: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(handle).st_mode)
        synced.append(("directory" if is_directory else "file", (job / "file").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    put(job)
    assert synced == [("file", False), ("directory", True)]


def test_no_handle_is_left_open(job: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    put(job)
    begin(job).abort()
    with pytest.raises(errors.PathRefused):
        begin(job, "sub/..")
    with pytest.raises(errors.NoSuchPath):
        begin(job, "sub/file")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_group_that_can_not_be_kept_gets_no_rights(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job / "file").touch()
    (job / "file").chmod(0o664)
    real = os.stat

    def of_another_group(*arguments: object, **options: object) -> os.stat_result:
        found = list(real(*arguments, **options))  # type: ignore[arg-type]
        found[stat.ST_GID] += 1
        return os.stat_result(found)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not a member")

    upload = begin(job)
    monkeypatch.setattr(os, "stat", of_another_group)
    upload.abort()
    upload = begin(job)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fchown", refused)
    upload.write(DATA)
    upload.finish(FINISH)
    assert stat.S_IMODE((job / "file").stat().st_mode) == 0o604


def test_set_uid_bits_are_not_kept(job: Path) -> None:
    (job / "file").touch()
    (job / "file").chmod(0o6755)
    put(job)
    assert stat.S_IMODE((job / "file").stat().st_mode) == 0o755


def test_leftovers_are_looked_for_in_a_bounded_part_of_a_directory(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LOOK_LIMIT", 5)
    before = time.time() - 2 * writing.LEFT_AFTER_S
    for number in range(20):
        path = job / f"{writing.PREFIX}{number:016x}"
        path.touch()
        os.utime(path, (before, before))
    put(job)
    assert len(list(job.glob(f"{writing.PREFIX}*"))) == 15


def test_a_directory_of_a_leftovers_name_is_left_alone(job: Path) -> None:
    directory = job / f"{writing.PREFIX}{0:016x}"
    directory.mkdir()
    os.utime(directory, (0, 0))
    put(job)
    assert directory.is_dir()


def test_what_fails_behind_is_told_in_front(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(writing, "SYNC_BYTES", 1)
    monkeypatch.setattr(os, "fdatasync", fails)
    upload = begin(job)
    upload.write(DATA)
    with pytest.raises(errors.NotStored, match="EDQUOT"):
        upload.finish(FINISH)
    assert list(job.iterdir()) == []


def test_a_directory_without_the_right_to_write_is_refused(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refused(path: object, flags: int, *more: object, **options: object) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(errors.PathRefused, match="may write"):
        begin(job)

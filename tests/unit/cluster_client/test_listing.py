"""Pages of a directory, as `files` sends them."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from cluster_client import errors, listing
from cluster_client.protocol import codec, messages

TAG = "jaaaaaaaaaaaaaa"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    directory = tmp_path / TAG
    directory.mkdir()
    return directory


def page(job: Path, **fields: object) -> messages.Listed:
    asked = messages.List(TAG, **fields)  # type: ignore[arg-type]
    return listing.Lister(str(job.parent)).page(asked)


def test_entries_tell_type_size_and_target(job: Path) -> None:
    (job / "directory").mkdir()
    (job / "file").write_text("12345")
    (job / "link").symlink_to("/somewhere")
    os.mkfifo(job / "pipe")
    listed = page(job)
    assert listed.is_complete
    assert [(entry.name, entry.type) for entry in listed.entries] == [
        ("directory", "directory"),
        ("file", "file"),
        ("link", "link"),
        ("pipe", "other"),
    ]
    assert listed.entries[1].size_bytes == 5
    assert listed.entries[2].target == "/somewhere"


def test_pages_together_are_the_whole_in_order(job: Path) -> None:
    names = [f"file-{number:03}" for number in range(25)]
    for name in reversed(names):
        (job / name).touch()
    found: list[str] = []
    after, pages, is_complete = "", 0, False
    while not is_complete:
        listed = page(job, after_b64=after, limit=10)
        found += [entry.name for entry in listed.entries]
        after, is_complete = listed.entries[-1].name_b64, listed.is_complete
        pages += 1
    assert (found, pages) == (names, 3)


def test_a_name_that_is_no_utf8_is_exact_in_base64(job: Path) -> None:
    raw = b"caf\xe9"
    (Path(os.fsdecode(os.fsencode(job) + b"/" + raw))).touch()
    (entry,) = page(job).entries
    assert base64.b64decode(entry.name_b64) == raw
    assert entry.name == "caf\ufffd"


def test_a_page_of_the_longest_names_fits_a_frame(job: Path) -> None:
    for number in range(400):
        (job / ("\x01" * 250 + f"{number:03}")).symlink_to("\x02" * 4000)
    seen, after, is_complete = 0, "", False
    while not is_complete:
        listed = page(job, after_b64=after)
        codec.encode(codec.Envelope(listed), messages.DATA_LIMIT_BYTES)
        seen += len(listed.entries)
        after, is_complete = listed.entries[-1].name_b64, listed.is_complete
    assert seen == 400


def test_an_empty_directory_is_a_complete_page(job: Path) -> None:
    assert page(job) == messages.Listed((), is_complete=True)


def test_a_position_that_is_no_base64_is_refused(job: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="base64"):
        page(job, after_b64="?")


def test_a_file_can_not_be_listed(job: Path) -> None:
    (job / "file").touch()
    with pytest.raises(errors.PathRefused, match="not a directory"):
        page(job, path="file")


# Kept names --------------------------------------------------------------------------------------


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each directory that was read anew."""
    found: list[int] = []
    scan = os.scandir

    def counted(path: int) -> object:
        found.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    return found


def settled(job: Path) -> None:
    """Let the directory look as if it had not been changed lately."""
    before = time.time() - 60
    os.utime(job, (before, before))


def names_of(lister: listing.Lister, limit: int) -> list[str]:
    found: list[str] = []
    after, is_complete = "", False
    while not is_complete:
        listed = lister.page(messages.List(TAG, after_b64=after, limit=limit))
        found += [entry.name for entry in listed.entries]
        after, is_complete = listed.entries[-1].name_b64, listed.is_complete
    return found


def test_the_pages_of_a_directory_read_it_once(job: Path, scans: list[int]) -> None:
    expected = [f"{number:03}" for number in range(100)]
    for name in expected:
        (job / name).touch()
    settled(job)
    assert names_of(listing.Lister(str(job.parent)), 7) == expected
    assert len(scans) == 1


def test_a_directory_that_was_changed_is_read_again(job: Path, scans: list[int]) -> None:
    for number in range(10):
        (job / f"{number}").touch()
    settled(job)
    lister = listing.Lister(str(job.parent))
    listed = lister.page(messages.List(TAG, limit=5))
    (job / "55").touch()
    (job / "7").unlink()
    settled(job)
    listed = lister.page(messages.List(TAG, after_b64=listed.entries[-1].name_b64))
    assert [entry.name for entry in listed.entries] == ["5", "55", "6", "8", "9"]
    assert len(scans) == 2


def test_a_directory_that_was_just_changed_is_not_kept(job: Path, scans: list[int]) -> None:
    for number in range(4):
        (job / f"{number}").touch()
    assert names_of(listing.Lister(str(job.parent)), 2) == ["0", "1", "2", "3"]
    assert len(scans) == 2


def test_another_directory_of_another_job_is_another(job: Path) -> None:
    other = job.parent / ("jb" + TAG[2:])
    other.mkdir()
    (job / "mine").touch()
    (other / "theirs").touch()
    settled(job)
    settled(other)
    lister = listing.Lister(str(job.parent))
    for tag, name in ((TAG, "mine"), (other.name, "theirs"), (TAG, "mine")):
        assert [entry.name for entry in lister.page(messages.List(tag)).entries] == [name]


def test_a_directory_of_more_names_than_are_kept_comes_whole(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "NAMES_LIMIT", 20)
    expected = [f"{number:03}" for number in range(100)]
    for name in expected:
        (job / name).touch()
    settled(job)
    assert names_of(listing.Lister(str(job.parent)), 7) == expected


def test_what_vanishes_while_a_page_is_made_is_left_out_and_ends_no_listing(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (job / f"{number}").touch()
    look = os.stat

    def vanished(path: object, **options: object) -> os.stat_result:
        if path in (b"0", b"1", b"4"):
            raise FileNotFoundError
        return look(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", vanished)
    assert names_of(listing.Lister(str(job.parent)), 2) == ["2", "3", "5"]


def test_the_worst_names_fit_a_frame(job: Path) -> None:
    for number in range(3000):
        (job / ("\x01" * 251 + f"{number:04}")).touch()
    listed = page(job, limit=10_000)
    assert codec.encode(codec.Envelope(listed), messages.DATA_LIMIT_BYTES)


def test_ten_thousand_entries_are_one_page(job: Path) -> None:
    for number in range(10_001):
        (job / f"output-{number:05}.dat").touch()
    listed = page(job, limit=20_000)
    assert (len(listed.entries), listed.is_complete) == (10_000, False)
    text = codec.encode(codec.Envelope(listed), messages.DATA_LIMIT_BYTES)
    assert codec.decode(text, messages.DATA_LIMIT_BYTES).message == listed

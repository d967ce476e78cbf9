"""Pages of a directory, as `files` sends them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from cluster_client import errors, files
from cluster_client.protocol import codec, messages

TAG = "jaaaaaaaaaaaaaa"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    directory = tmp_path / TAG
    directory.mkdir()
    return directory


def page(job: Path, **fields: object) -> messages.Listed:
    asked = messages.List(TAG, **fields)  # type: ignore[arg-type]
    return files.list_directory(str(job.parent), asked)


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

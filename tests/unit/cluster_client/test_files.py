"""Pages of a directory, as `files` sends them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_client import errors, files
from cluster_client.protocol import codec, messages, session
from cluster_client.stdio_socket import Incoming

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


class Silence:
    """A socket on which a greeting comes, and then nothing."""

    def __init__(self, greeting: str) -> None:
        self.limits_s: list[float | None] = []
        self.closed: list[tuple[int, str]] = []
        self._frames = [greeting]

    def receive(self, limit_s: float | None) -> Incoming:
        self.limits_s.append(limit_s)
        if not self._frames:
            raise TimeoutError("nothing came")
        return Incoming(self._frames.pop(0).encode(), is_binary=False)

    def send(self, message: object) -> None:
        assert message

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def test_a_link_on_which_nobody_asks_any_more_ends(tmp_path: Path) -> None:
    asker = session.Session(messages.DATA_LIMIT_BYTES)
    asker.request(messages.Hello((1,), "portal", 1, purpose=messages.FILES), 5.0)
    (greeting,) = asker.texts_to_send()
    socket = Silence(greeting)
    settings = SimpleNamespace(
        job_working_directory=str(tmp_path), instance_id="portal", cluster_id=1
    )
    files.FilesLink(socket, settings, files.Life()).run()  # type: ignore[arg-type]
    assert socket.limits_s == [files.GREETING_LIMIT_S, files.IDLE_LIMIT_S]
    assert socket.closed == [(files.PROTOCOL_ERROR, "nothing came")]

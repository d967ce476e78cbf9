"""Files that come in over `client.py files`: whole in their place, or no trace of them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket

from cluster_client.protocol import messages
from tests.integration.cluster_client_front.harness import (
    Bridge,
    Installation,
    Link,
    wait_until,
)

TAG = "jaaaaaaaaaaaaaa"
CHUNK_BYTES = 1 << 20
DAY_S = 86400


@pytest.fixture
def job(installation: Installation) -> Path:
    directory = installation.jobs / TAG
    (directory / "sub").mkdir(parents=True)
    (directory / ".hpc").mkdir()
    (directory / "old").write_text("old")
    (installation.jobs / "secret").write_text("secret")
    return directory


@pytest.fixture
def link(installation: Installation, job: Path) -> Iterator[Link]:
    one = installation.files()
    yield one
    one.close()


def send(link: Link, data: bytes) -> None:
    for at in range(0, len(data), CHUNK_BYTES):
        link.socket.send_binary(data[at : at + CHUNK_BYTES])


def finish(link: Link, data: bytes, sha256: str = "") -> object:
    return link.request(messages.Finish(len(data), sha256 or hashlib.sha256(data).hexdigest()))


def put(link: Link, path: str, data: bytes) -> object:
    ready = link.request(messages.Put("t", TAG, path, len(data)))
    if not isinstance(ready, messages.Ready):
        return ready
    send(link, data)
    return finish(link, data)


def refused(answer: object) -> messages.Error:
    assert isinstance(answer, messages.Error), answer
    return answer


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536, 5_000_000])
def test_a_file_arrives_whole_under_its_name(link: Link, job: Path, size: int) -> None:
    data = os.urandom(size)
    stored = put(link, "sub/new", data)
    assert isinstance(stored, messages.Stored), stored
    assert stored.size_bytes == size
    assert (job / "sub" / "new").read_bytes() == data
    assert names(job / "sub") == {"new"}
    opened = link.request(messages.Open("t", 1, TAG, "sub/new", length=0))
    assert opened.etag == stored.etag


def test_a_file_that_is_there_is_replaced_as_a_whole_and_keeps_its_mode(
    link: Link, job: Path
) -> None:
    (job / "old").chmod(0o640)
    with (job / "old").open() as before:
        assert isinstance(put(link, "old", b"new"), messages.Stored)
        assert before.read() == "old"
    assert (job / "old").read_text() == "new"
    assert stat.S_IMODE((job / "old").stat().st_mode) == 0o640


def test_a_new_file_has_the_rights_that_the_umask_leaves(link: Link, job: Path) -> None:
    put(link, "new", b"x")
    assert stat.S_IMODE((job / "new").stat().st_mode) == 0o600


def test_until_it_is_whole_the_place_is_as_it_was(link: Link, job: Path) -> None:
    link.request(messages.Put("t", TAG, "old", 6))
    send(link, b"new")
    (temporary,) = wait_until(lambda: names(job) - {"old", "sub", ".hpc"})
    wait_until(lambda: (job / temporary).read_bytes() == b"new")
    assert (job / "old").read_text() == "old"
    assert stat.S_IMODE((job / temporary).stat().st_mode) == 0o600
    send(link, b"est")
    assert isinstance(finish(link, b"newest"), messages.Stored)
    assert (job / "old").read_text() == "newest"


def test_what_came_damaged_changes_nothing(link: Link, job: Path) -> None:
    for announced, sent, sha256 in ((3, b"new", "0" * 64), (4, b"new", ""), (0, b"", "0" * 64)):
        link.request(messages.Put("t", TAG, "old", announced))
        send(link, sent)
        answer = refused(finish(link, sent, sha256))
        assert (answer.code, answer.transient) == ("damaged", True)
    assert (job / "old").read_text() == "old"
    assert names(job) == {"old", "sub", ".hpc"}


def test_more_than_was_announced_is_told_at_once_and_as_the_answer(link: Link, job: Path) -> None:
    link.request(messages.Put("t", TAG, "old", 3))
    for _ in range(5):
        send(link, b"new")
    end = link.wait_for(lambda message: isinstance(message, messages.End))
    assert "3 bytes that were announced" in end.problem
    assert refused(finish(link, b"new" * 5)).code == "damaged"
    assert names(job) == {"old", "sub", ".hpc"}
    assert isinstance(put(link, "old", b"good"), messages.Stored)


REFUSED = (
    ("", "path_refused", "names no file"),
    ("sub/", "path_refused", "names a directory"),
    ("sub/.", "path_refused", "names a directory"),
    ("sub", "path_refused", "is a directory"),
    ("fifo", "path_refused", "is a FIFO"),
    ("link", "path_refused", "is a link"),
    (".hpc", "path_refused", "records"),
    (".hpc/script", "path_refused", "records"),
    ("records/script", "path_refused", "records"),
    ("../secret", "path_refused", "'..'"),
    ("up/secret", "path_refused", "leads out"),
    ("/etc/passwd", "path_refused", "relative"),
    ("a\0b", "path_refused", "NUL"),
    ("x" * 256, "path_refused", "over 255"),
    ("x/" * 2100 + "x", "path_refused", "over 4096"),
    ("\ud800", "path_refused", "characters"),
    ("absent/new", "no_such_path", "No such file"),
    ("old/new", "path_refused", "through a file"),
)


def test_a_place_where_nothing_may_be_written_is_refused_with_its_reason(
    link: Link, job: Path
) -> None:
    os.mkfifo(job / "fifo")
    (job / "link").symlink_to("old")
    (job / "up").symlink_to("..")
    (job / "records").symlink_to(".hpc")
    before = names(job)
    for path, code, words in REFUSED:
        answer = refused(put(link, path, b"x"))
        assert (answer.code, words in answer.message) == (code, True), answer
    assert refused(link.request(messages.Put("t", TAG, "new", -1))).code == "invalid_request"
    assert names(job) == before
    assert (job / "old").read_text() == "old"
    assert (job.parent / "secret").read_text() == "secret"


def test_a_name_that_is_no_utf8_is_written_as_it_is(link: Link, job: Path) -> None:
    assert isinstance(put(link, "caf\udce9", b"x"), messages.Stored)
    assert b"caf\xe9" in {os.fsencode(path.name) for path in job.iterdir()}


def test_a_directory_in_the_place_meanwhile_is_not_replaced(link: Link, job: Path) -> None:
    link.request(messages.Put("t", TAG, "new", 1))
    (job / "new").mkdir()
    send(link, b"x")
    assert "is a directory" in refused(finish(link, b"x")).message
    assert names(job) == {"old", "sub", ".hpc", "new"}


@pytest.mark.parametrize(
    ("other", "answer"),
    [
        (messages.List(TAG), messages.Listed),
        (messages.Open("t", 1, TAG, "old"), messages.Opened),
        (messages.Open("t", 1, TAG, "absent"), messages.Error),
    ],
)
def test_another_request_gives_the_upload_up(
    link: Link, job: Path, other: object, answer: type[object]
) -> None:
    link.request(messages.Put("t", TAG, "new", 10))
    send(link, b"x")
    assert isinstance(link.request(other), answer)
    assert names(job) == {"old", "sub", ".hpc"}
    assert refused(finish(link, b"x")).code == "invalid_request"


def test_bytes_without_a_put_end_the_link(link: Link) -> None:
    link.socket.send_binary(b"x")
    assert link.wait_for_end().code == 1002
    assert link.bridge.process.wait(30) == 0


def test_a_link_that_breaks_leaves_nothing(installation: Installation, job: Path) -> None:
    link = installation.files()
    link.request(messages.Put("t", TAG, "new", 10 << 20))
    send(link, os.urandom(3 << 20))
    link.bridge.close()
    assert names(job) == {"old", "sub", ".hpc"}


def test_what_a_killed_process_left_is_removed_after_a_day(
    installation: Installation, job: Path
) -> None:
    link = installation.files()
    link.request(messages.Put("t", TAG, "new", 10))
    link.bridge.process.kill()
    link.bridge.process.wait()
    (left,) = names(job) - {"old", "sub", ".hpc"}
    alike = ".hpc-put-" + "f" * 15
    (job / alike).touch()
    again = installation.files()
    assert isinstance(put(again, "new", b"x"), messages.Stored)
    assert names(job) == {"old", "sub", ".hpc", "new", left, alike}
    for name in (left, alike):
        os.utime(job / name, (time.time() - DAY_S - 60,) * 2)
    assert isinstance(put(again, "new", b"x"), messages.Stored)
    assert names(job) == {"old", "sub", ".hpc", "new", alike}
    again.close()


def test_two_at_once_never_mix_and_the_last_to_end_is_there(
    installation: Installation, link: Link, job: Path
) -> None:
    other = installation.files()
    for one in (link, other):
        assert isinstance(one.request(messages.Put("t", TAG, "new", 4)), messages.Ready)
    for part in (b"ab", b"cd"):
        send(link, part)
        send(other, part.upper())
    assert isinstance(finish(link, b"abcd"), messages.Stored)
    assert (job / "new").read_bytes() == b"abcd"
    assert isinstance(finish(other, b"ABCD"), messages.Stored)
    assert (job / "new").read_bytes() == b"ABCD"
    other.close()


def test_a_ping_is_answered_in_the_middle_of_an_upload(link: Link) -> None:
    link.request(messages.Put("t", TAG, "new", 10))
    link.socket.ping("now")
    opcode, data = link.socket.recv_data(control_frame=True)
    assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b"now")


# A disk that is full -----------------------------------------------------------------------------

DISK_BYTES = 4 << 20


@pytest.fixture
def full_disk(installation: Installation, job: Path) -> Iterator[tuple[Link, Path]]:
    """A link to a process whose job has a small tmpfs, and that as seen by us."""
    rights = [] if os.getuid() == 0 else ["--map-root-user"]
    mount = f'mount -t tmpfs -o size={DISK_BYTES} none "{job}/sub" && exec "$@"'
    prefix = ["unshare", "--mount", *rights, "sh", "-c", mount, "sh"]
    command = [*prefix, *installation.command("files", installation.key)]
    with Bridge(command, installation.environment) as bridge:
        link = Link(bridge, installation, "/files", messages.DATA_LIMIT_BYTES)
        link.greet(purpose=messages.FILES)
        yield link, Path(f"/proc/{bridge.process.pid}/root{job}/sub")


def fill(disk: Path) -> None:
    """Take the last byte."""
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(4096))


def test_a_file_that_can_not_fit_is_refused_before_it_is_sent(
    full_disk: tuple[Link, Path],
) -> None:
    link, disk = full_disk
    answer = refused(link.request(messages.Put("t", TAG, "sub/new", DISK_BYTES + 1)))
    assert (answer.code, answer.transient) == ("no_space", True)
    assert "sub/new" in answer.message
    assert f"{DISK_BYTES + 1} bytes are needed" in answer.message
    assert names(disk) == set()


def test_a_disk_that_becomes_full_is_told_at_once_and_nothing_is_left(
    full_disk: tuple[Link, Path],
) -> None:
    link, disk = full_disk
    data = os.urandom(3 << 20)
    assert isinstance(put(link, "sub/new", b"old"), messages.Stored)
    link.request(messages.Put("t", TAG, "sub/new", len(data)))
    fill(disk)
    send(link, data)
    end = link.wait_for(lambda message: isinstance(message, messages.End))
    assert "ENOSPC" in end.problem
    answer = refused(finish(link, data))
    assert (answer.code, answer.message) == ("no_space", end.problem)
    assert names(disk) == {"new", "filler"}
    assert (disk / "new").read_bytes() == b"old"
    (disk / "filler").unlink()
    assert isinstance(put(link, "sub/new", data), messages.Stored)
    assert (disk / "new").read_bytes() == data

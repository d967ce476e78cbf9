"""Files on their way through a files worker, from and to a cluster on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection

from controller import errors, publish
from controller.models import HpcCluster
from controller.models.transfer import Direction, TransferState
from controller.relay.frames import Kind
from controller.services import files, streams
from controller.services import transfers as rows
from tests import stack as stacks
from workers.operations import transfers

from .transfer_place import BIG, GONE_LIMIT_S, MIB, Place

CONTENT = hashlib.shake_128(b"content").digest(3 * MIB + 17)


@pytest.fixture
def place(shared_stack: stacks.Stack, cluster: HpcCluster) -> Iterator[Place]:
    made = Place(shared_stack, cluster)
    yield made
    shared_stack.wait(lambda: not made.clients(), "the processes for files to end")


# Down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, MIB, len(CONTENT)])
def test_a_file_comes_as_it_is(place: Place, size_bytes: int) -> None:
    content = CONTENT[:size_bytes]
    place.put("out.bin", content)
    download = files.download(place.job, "out.bin")
    assert (download.size_bytes, download.name) == (size_bytes, "out.bin")
    assert b"".join(download) == content
    row = place.wait_state(TransferState.COMPLETED)
    assert (row.done_bytes, row.size_bytes) == (size_bytes, size_bytes)
    assert row.sha256 == hashlib.sha256(content).hexdigest()


def test_a_name_that_is_no_text_is_found(place: Place) -> None:
    (Path(os.fsdecode(os.fsencode(place.directory) + b"/\xff\xe4"))).write_bytes(b"latin")
    assert b"".join(files.download(place.job, b"\xff\xe4")) == b"latin"


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("nothing.here", errors.NotFound, "nothing.here"),
        ("directory", errors.Refused, "directory"),
        ("fifo", errors.Refused, "FIFO"),
        ("../../../etc/passwd", errors.Refused, "must not hold"),
        ("out", errors.Refused, "out of the job"),
    ],
)
def test_what_is_no_file_is_told_before_anything_comes(
    place: Place, path: str, kind: type[errors.HpcError], words: str
) -> None:
    (place.directory / "directory").mkdir()
    os.mkfifo(place.directory / "fifo")
    (place.directory / "out").symlink_to("/etc/passwd")
    with pytest.raises(kind, match=words) as caught:
        files.download(place.job, path)
    row = place.wait_state(TransferState.FAILED)
    assert str(caught.value) == row.failure


def test_a_file_that_shrinks_meanwhile_is_visibly_broken(place: Place) -> None:
    download = place.stalled()
    os.truncate(place.directory / "big", 40 * MIB)
    with pytest.raises(errors.TransferBroken, match="shrank"):
        list(download)
    assert "shrank" in place.wait_state(TransferState.FAILED).failure


def test_a_client_that_is_killed_in_the_middle_breaks_the_transfer(place: Place) -> None:
    download = place.stalled()
    for pid in place.clients():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.TransferBroken, match=r"broke off after \d+ of \d+ bytes"):
        list(download)
    assert "broke off" in place.wait_state(TransferState.FAILED).failure


def test_who_reads_no_more_has_the_cluster_stop(place: Place) -> None:
    place.stalled().close()
    place.stack.wait(lambda: not place.clients(), "the reader to end", GONE_LIMIT_S)
    assert place.wait_state(TransferState.CANCELLED).failure


def test_who_goes_while_the_cluster_stands_still_ends_the_transfer(place: Place) -> None:
    download = place.stalled()
    for pid in place.clients():
        os.kill(pid, signal.SIGSTOP)
    ended: list[errors.HpcError] = []

    def read() -> None:
        with pytest.raises(errors.HpcError) as caught:
            list(download)
        ended.append(caught.value)
        connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    place.stack.wait(lambda: waits_for_input(thread), "the reader to wait for more")
    download.close()
    thread.join(GONE_LIMIT_S)
    assert [type(problem) for problem in ended] == [errors.TransferBroken]
    place.stack.wait(lambda: not place.clients(), "the reader to end", GONE_LIMIT_S)
    assert place.wait_state(TransferState.CANCELLED)


def waits_for_input(thread: threading.Thread) -> bool:
    """Whether a thread is in poll(2)."""
    where = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    return "poll" in where


def test_a_file_whose_arrival_nobody_confirmed_is_not_completed(place: Place) -> None:
    place.put("out.bin", CONTENT)
    transfer = rows.begin(place.job, place.cluster, Direction.DOWNLOAD, "out.bin")
    relay, _ = streams.opened(transfer, publish.FILES_DOWNLOAD)
    while relay.receive(GONE_LIMIT_S).kind is not Kind.END:
        assert place.row().state == TransferState.RUNNING
    relay.close()
    assert not place.wait_state(TransferState.CANCELLED).sha256


def test_a_task_that_comes_twice_changes_nothing(place: Place) -> None:
    place.put("out.bin", CONTENT)
    assert b"".join(files.download(place.job, "out.bin")) == CONTENT
    row = place.wait_state(TransferState.COMPLETED)
    known = row.tokens.first()  # upkeep may have been here
    transfers.download(str(row.pk), str(known.token if known else uuid4()))
    assert place.row().state == TransferState.COMPLETED
    connection.close()


# Up -----------------------------------------------------------------------------------------------


def pieces(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 700_001):
        yield content[at : at + 700_001]


def test_a_file_is_put_and_replaced_whole(place: Place) -> None:
    for content in (CONTENT, b"", b"short"):
        stored = files.upload(place.job, "in.bin", len(content), pieces(content))
        assert (place.directory / "in.bin").read_bytes() == content
        assert stored.sha256 == hashlib.sha256(content).hexdigest()
        row = place.wait_state(TransferState.COMPLETED)
        assert (row.done_bytes, row.sha256, row.etag) == (
            len(content),
            stored.sha256,
            stored.etag,
        )
    assert place.names() == ["in.bin"]


def test_an_upload_that_breaks_off_leaves_what_was_there(place: Place) -> None:
    place.put("in.bin", b"old")

    def broken() -> Iterator[bytes]:
        yield CONTENT[: 2 * MIB]
        place.stack.wait(lambda: len(place.names()) > 1, "the temporary file")
        raise KeyError("the disk of whoever sends")

    with pytest.raises(KeyError):
        files.upload(place.job, "in.bin", len(CONTENT), broken())
    assert place.wait_state(TransferState.CANCELLED)
    place.stack.wait(lambda: place.names() == ["in.bin"], "the temporary file to go")
    assert (place.directory / "in.bin").read_bytes() == b"old"


def test_an_upload_whose_client_is_killed_is_told(place: Place) -> None:
    def kill() -> Iterator[bytes]:
        for number in range(64):
            if number == 3:
                for pid in place.clients():
                    os.kill(pid, signal.SIGKILL)
            yield CONTENT[:MIB]

    with pytest.raises(errors.TransferBroken, match=r"broke off|gone"):
        files.upload(place.job, "in.bin", BIG, kill())
    assert place.wait_state(TransferState.FAILED)
    assert "in.bin" not in place.names()


@pytest.mark.parametrize(
    ("path", "size_bytes", "kind"),
    [
        ("../in.bin", 1, errors.Refused),
        ("no/such/directory", 1, errors.NotFound),
        ("directory", 1, errors.Refused),
        ("in.bin", 1 << 60, errors.NoSpace),
    ],
)
def test_what_can_not_be_written_is_told_before_anything_goes(
    place: Place, path: str, size_bytes: int, kind: type[errors.HpcError]
) -> None:
    (place.directory / "directory").mkdir()

    def never() -> Iterator[bytes]:
        raise AssertionError("It was refused.")
        yield b""

    with pytest.raises(kind):
        files.upload(place.job, path, size_bytes, never())
    assert place.wait_state(TransferState.FAILED)
    assert place.names() == ["directory"]


def test_memory_stays_flat(place: Place, shared_stack: stacks.Stack) -> None:
    """Of the worker; what passes is many times what it may grow by."""
    pid = shared_stack.workers[1].pid
    place.put("big", size_bytes=16 * MIB)

    def read() -> int:
        return sum(map(len, files.download(place.job, "big")))

    assert read() == 16 * MIB
    before = resident(pid)
    place.put("big", size_bytes=512 * MIB)
    assert read() == 512 * MIB
    assert resident(pid) < before + 64 * MIB


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

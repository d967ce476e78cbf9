"""Files on their way over a real sshd: their channels, what breaks them, and who waits for whom."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from controller import errors
from controller.models.transfer import TransferState
from controller.services import files
from ops import processes
from tests import stack as stacks

from .places import Place

MIB = 1 << 20
BIG = 64 * MIB
"""More than all buffers of a way together hold."""
GONE_LIMIT_S = 6.0
CONTENT = hashlib.shake_128(b"content").digest(3 * MIB + 17)
SEVEN_STALLED = 7


def stalled(place: Place) -> files.Download:
    """A download that nobody reads from."""
    return files.download(place.job, "big")


@pytest.fixture(scope="module")
def worker_stack(files_stack: stacks.Stack) -> stacks.Stack:
    """With one files worker for all tests of this module."""
    files_stack.start_worker({"HPC_LOGINS_PER_MINUTE": "100"}, queues="files")
    return files_stack


@pytest.fixture
def make(
    worker_stack: stacks.Stack, make_place: Callable[..., Place]
) -> Iterator[Callable[..., Place]]:
    """Makes places with a big file."""
    made: list[Place] = []

    def one(options: dict[str, str] | None = None) -> Place:
        made.append(make_place(options))
        made[-1].put("big", size_bytes=BIG)
        return made[-1]

    yield one
    for place in made:
        place.cut()


def wait(is_met: Callable[[], bool], limit_s: float = GONE_LIMIT_S) -> None:
    assert processes.wait_until(is_met, limit_s)


def test_files_go_and_come_as_they_are_over_one_login(make: Callable[..., Place]) -> None:
    place = make()
    stored = files.upload(place.job, "new.bin", len(CONTENT), [CONTENT])
    assert (place.directory / "new.bin").read_bytes() == CONTENT
    download = files.download(place.job, "new.bin")
    assert (download.size_bytes, download.etag) == (len(CONTENT), stored.etag)
    assert b"".join(download) == CONTENT
    place.wait_state(TransferState.COMPLETED, 2)
    assert place.logins[0] == 1


def test_seven_that_stand_still_hold_up_neither_the_eighth_nor_questions(
    make: Callable[..., Place],
) -> None:
    place = make()
    seven = [stalled(place) for _ in range(SEVEN_STALLED)]
    place.put("eighth.bin", CONTENT * 10)
    assert b"".join(files.download(place.job, "eighth.bin")) == CONTENT * 10
    assert place.logins[0] == 1
    more = [stalled(place) for _ in range(3)]
    assert place.logins[0] == 2
    assert files.read(place.job, "stdout.log", 0, 100) == b"hello\n"
    assert sum(map(len, seven[0])) == BIG
    for download in (*seven, *more):
        download.close()
    place.wait_state(TransferState.CANCELLED, SEVEN_STALLED - 1 + len(more))
    wait(lambda: len(place.clients()) <= 2)


def test_a_server_of_few_sessions_keeps_one_for_questions(make: Callable[..., Place]) -> None:
    place = make({"MaxSessions": "1"})
    carried = []
    with pytest.raises(errors.Unavailable, match="MaxSessions") as caught:
        for _ in range(6):
            carried.append(stalled(place))
    assert caught.value.retry_after_s > 0
    assert 0 < len(carried) < 5
    assert files.read(place.job, "stdout.log", 0, 100) == b"hello\n"
    for download in carried:
        download.close()


def test_who_reads_no_more_has_the_reader_on_the_cluster_end(
    make: Callable[..., Place],
) -> None:
    place = make()
    download = stalled(place)
    assert place.clients()
    download.close()
    wait(lambda: not place.clients())
    place.wait_state(TransferState.CANCELLED)


@pytest.mark.parametrize("what", ["client", "session"])
def test_what_dies_on_the_cluster_breaks_the_transfer_visibly(
    make: Callable[..., Place], what: str
) -> None:
    place = make()
    download = stalled(place)
    for pid in place.clients() if what == "client" else place.sessions():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.TransferBroken, match=r"broke off after \d+ of \d+ bytes"):
        list(download)
    place.wait_state(TransferState.FAILED)
    assert sum(map(len, files.download(place.job, "big"))) == BIG


def test_a_link_that_died_unseen_is_replaced_before_the_first_word(
    make: Callable[..., Place],
) -> None:
    place = make()
    for _ in range(2):
        place.put("out.bin", CONTENT)
        assert b"".join(files.download(place.job, "out.bin")) == CONTENT
        for pid in place.clients():
            os.kill(pid, signal.SIGKILL)
    place.wait_state(TransferState.COMPLETED, 2)
    assert place.logins[0] == 1


def test_an_upload_that_breaks_off_leaves_no_trace(make: Callable[..., Place]) -> None:
    place = make()

    def names() -> set[str]:
        return {path.name for path in place.directory.iterdir()} - {"big", "stdout.log"}

    def broken() -> Iterator[bytes]:
        yield CONTENT[: 2 * MIB]
        wait(lambda: bool(names()))
        raise KeyError("the disk of whoever sends")

    with pytest.raises(KeyError):
        files.upload(place.job, "in.bin", len(CONTENT), broken())
    place.wait_state(TransferState.CANCELLED)
    wait(lambda: not names())


def test_a_cluster_without_the_file_tells_so_over_a_link_that_stays(
    make: Callable[..., Place],
) -> None:
    place = make()
    os.mkfifo(place.directory / "fifo")
    for path, kind in (("no.thing", errors.NotFound), ("fifo", errors.Refused)):
        with pytest.raises(kind, match=path):
            files.download(place.job, path)
    (client,) = place.clients()
    assert sum(map(len, files.download(place.job, "big"))) == BIG
    assert place.clients() == [client]

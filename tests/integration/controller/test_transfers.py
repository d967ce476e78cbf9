"""Files through the relay, seen from the web process: whole or visibly broken, and bounded."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.db.models.functions import Now
from pytest_django import Settings

from controller import errors, publish
from controller.lifecycle import JobStatus
from controller.models import FileTransfer, HpcCluster, HpcJob, WebsocketToken
from controller.models.transfer import Direction, TransferState
from controller.relay.connection import Connection
from controller.relay.frames import Kind, payload_of
from controller.services import clusters, files, transfers, upkeep

from .conftest import MakeJob
from .file_worker import LIMIT_S, Part, Workers, end, sends, start, takes
from .test_concurrency import at_once

CONTENT = bytes(range(256)) * 41
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def job(make_job: MakeJob, cluster: HpcCluster) -> HpcJob:
    return make_job(JobStatus.COMPLETED, cluster=cluster, attempt=1)


@pytest.fixture
def play(
    settings: Settings, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Part], Workers]]:
    """Has the workers of this test play a part."""
    settings.HPC_IPC_UNIX_SOCKET = str(short_directory / "relay")
    settings.HPC_FILE_CONNECTION_CHUNK_SIZE = 1024
    playing: list[Workers] = []

    def begin(part: Part) -> Workers:
        playing.append(Workers(part))
        monkeypatch.setattr(publish, "start_transfer", playing[-1])
        return playing[-1]

    yield begin
    for workers in playing:
        workers.join()
    assert not list(short_directory.iterdir())


def row() -> FileTransfer:
    return FileTransfer.objects.get()


async def gathered(download: files.Download) -> bytes:
    try:
        return b"".join([piece async for piece in download])
    finally:
        await sync_to_async(connections.close_all)()


READERS = {
    "threads": b"".join,
    "asyncio": lambda download: asyncio.run(gathered(download)),
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@readers
@pytest.mark.parametrize("size_bytes", [0, 1, 1000, 2500])
def test_a_file_comes_whole(
    play: Callable[[Part], Workers], job: HpcJob, read: Any, size_bytes: int, admin_user: User
) -> None:
    workers = play(sends(CONTENT[:size_bytes]))
    download = files.download(job, "out/é.dat", owner=admin_user)
    assert (download.name, download.size_bytes, download.etag) == ("é.dat", size_bytes, "e1")
    assert read(download) == CONTENT[:size_bytes]
    assert workers.join() == [None]
    assert (row().state, row().owner) == (TransferState.COMPLETED, admin_user)
    assert download.transfer_id == row().pk
    with pytest.raises(errors.Invalid, match="read before"):
        read(download)


@readers
def test_a_file_comes_and_goes_between_hosts(
    play: Callable[[Part], Workers], job: HpcJob, read: Any, settings: Settings, redis_url: str
) -> None:
    settings.HPC_FILE_RELAY_URL = redis_url
    play(sends(CONTENT))
    assert read(files.download(job, "out")) == CONTENT
    kept: list[bytes] = []
    play(takes(kept))
    files.upload(job, "in", len(CONTENT), [CONTENT])
    assert kept == [CONTENT]
    workers = play(watches)
    for _ in files.download(job, "out"):
        break
    assert [type(problem) for problem in workers.join()] == [errors.TransferBroken]


def damaged(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT[:-1] + b"?")
    end(connection, CONTENT)
    connection.receive(LIMIT_S)


def padded(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT[:-1] + b"?")
    connection.send(Kind.DATA)
    end(connection, CONTENT)
    connection.receive(LIMIT_S)


def short(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT[:-1])
    end(connection, CONTENT[:-1])
    connection.receive(LIMIT_S)


def grown(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT) - 1)
    connection.send(Kind.DATA, CONTENT)
    end(connection, CONTENT)
    connection.receive(LIMIT_S)


def cut(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT)


def told(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT)
    connection.send(Kind.ERROR, payload_of({"code": "refused", "message": "The file shrank."}))


def confused(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT)
    connection.send(Kind.HELLO)


@readers
@pytest.mark.parametrize(
    ("part", "words"),
    [
        (damaged, "sha256 differs"),
        (short, "10495 of the file's 10496 bytes"),
        (grown, "More came"),
        (cut, "gone"),
        (told, "The file shrank"),
        (confused, "HELLO came"),
    ],
)
def test_a_file_that_breaks_never_looks_whole(
    play: Callable[[Part], Workers], job: HpcJob, read: Any, part: Part, words: str
) -> None:
    workers = play(part)
    download = files.download(job, "out")
    with pytest.raises(errors.TransferBroken, match=words):
        read(download)
    workers.join()
    assert row().state == TransferState.FAILED
    assert words in row().failure
    assert download.sha256 == ""


@pytest.mark.parametrize("part", [damaged, padded])
def test_the_last_piece_is_held_back_until_all_is_verified(
    play: Callable[[Part], Workers], job: HpcJob, part: Part
) -> None:
    play(part)
    pieces = []
    with pytest.raises(errors.TransferBroken):
        for piece in files.download(job, "out"):
            pieces.append(piece)
    assert pieces == []


def hangs_up(transfer: FileTransfer, connection: Connection) -> None:
    start(connection, len(CONTENT))
    connection.send(Kind.DATA, CONTENT)
    end(connection, CONTENT)


@readers
def test_a_worker_that_dies_once_all_was_said_leaves_the_file_whole(
    play: Callable[[Part], Workers], job: HpcJob, read: Any
) -> None:
    workers = play(hangs_up)
    download = files.download(job, "out")
    assert workers.join() == [None]
    assert read(download) == CONTENT
    found = row()
    assert (found.state, found.sha256) == (TransferState.COMPLETED, download.sha256)


@pytest.mark.parametrize(
    "kind", [errors.NotFound, errors.Refused, errors.HostUnreachable, errors.Timeout]
)
def test_what_the_worker_refuses_is_raised_before_any_byte(
    play: Callable[[Part], Workers], job: HpcJob, kind: type[errors.HpcError]
) -> None:
    said = {"code": kind.code, "message": "No, thank you.", "transient": kind.transient}
    play(lambda transfer, connection: connection.send(Kind.ERROR, payload_of(said)))
    with pytest.raises(kind, match="No, thank you"):
        files.download(job, "out")
    assert (row().state, row().failure) == (TransferState.FAILED, "No, thank you.")


@pytest.mark.parametrize("size_bytes", [None, -1, True, "5", 1 << 63, 1.5])
def test_a_size_that_is_none_is_refused(
    play: Callable[[Part], Workers], job: HpcJob, size_bytes: Any
) -> None:
    workers = play(lambda transfer, connection: start(connection, size_bytes))
    with pytest.raises(errors.TransferBroken, match="no size"):
        files.download(job, "out")
    workers.join()
    assert row().state == TransferState.FAILED


def watches(transfer: FileTransfer, connection: Connection) -> None:
    """Sends without end, until the reader has gone."""
    start(connection, 1 << 40)
    while True:
        connection.send(Kind.DATA, bytes(1 << 16))


def watched(connection: Connection) -> None:
    assert connection.wait_gone(LIMIT_S)
    raise errors.TransferBroken("gone")


def idles(transfer: FileTransfer, connection: Connection) -> None:
    """Sends nothing; sees the reader go."""
    start(connection, 1 << 40)
    watched(connection)


def begun(download: files.Download) -> Any:
    """One piece was read in a generator that is then forgotten."""
    return next(iter(download))


async def abandoned(download: files.Download) -> None:
    async for _ in download:
        break


async def cancelled(download: files.Download) -> None:
    task = asyncio.create_task(gathered(download))
    while not download._arrival.done_bytes:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("part", "leave"),
    [
        (idles, lambda download: download.close()),
        (idles, lambda download: None),
        (idles, iter),
        (idles, aiter),
        (watches, begun),
        (watches, lambda download: asyncio.run(abandoned(download))),
        (watches, lambda download: asyncio.run(cancelled(download))),
    ],
    ids=["closed", "never read", "iter alone", "aiter alone", "left", "left async", "cancelled"],
)
def test_who_goes_away_has_the_worker_stop(
    play: Callable[[Part], Workers], job: HpcJob, part: Part, leave: Callable[[Any], Any]
) -> None:
    workers = play(part)
    leave(files.download(job, "out"))
    gc.collect()
    assert [type(problem) for problem in workers.join()] == [errors.TransferBroken]


def test_a_file_goes_whole_in_pieces_of_one_size(
    play: Callable[[Part], Workers], job: HpcJob
) -> None:
    kept: list[bytes] = []
    workers = play(takes(kept))
    pieces = [CONTENT[:1], CONTENT[1:3], b"", CONTENT[3:5000], memoryview(CONTENT)[5000:]]
    stored = files.upload(job, "in", len(CONTENT), pieces)
    assert workers.join() == [None]
    assert kept == [CONTENT]
    assert (stored.size_bytes, stored.etag, stored.transfer_id) == (len(CONTENT), "e2", row().pk)
    assert row().state == TransferState.COMPLETED


def failing() -> Iterator[bytes]:
    yield CONTENT
    raise ConnectionResetError("the browser went")


def test_a_source_that_fails_half_way_cancels_and_leaves_nothing(
    play: Callable[[Part], Workers], job: HpcJob
) -> None:
    kept: list[bytes] = []
    workers = play(takes(kept))
    with pytest.raises(ConnectionResetError):
        files.upload(job, "in", 2 * len(CONTENT), failing())
    assert [type(problem) for problem in workers.join()] == [errors.TransferBroken]
    assert kept == []
    assert (row().state, row().failure) == (TransferState.CANCELLED, "the browser went")


@pytest.mark.parametrize("announced", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_source_of_another_size_leaves_nothing(
    play: Callable[[Part], Workers], job: HpcJob, announced: int
) -> None:
    kept: list[bytes] = []
    workers = play(takes(kept))
    with pytest.raises(errors.Invalid, match=f"announced with {announced} bytes"):
        files.upload(job, "in", announced, [CONTENT])
    workers.join()
    assert kept == []
    assert row().state == TransferState.FAILED


def full(transfer: FileTransfer, connection: Connection) -> None:
    connection.send(Kind.START)
    connection.receive(LIMIT_S)
    connection.send(Kind.ERROR, payload_of({"code": "no_space", "message": "The disk is full."}))


def test_a_worker_that_gives_up_in_the_middle_is_heard(
    play: Callable[[Part], Workers], job: HpcJob
) -> None:
    play(full)
    with pytest.raises(errors.NoSpace, match="disk is full"):
        files.upload(job, "in", 1 << 30, (bytes(1 << 20) for _ in range(1 << 10)))
    assert "disk is full" in row().failure


def vanishes_with_all(transfer: FileTransfer, connection: Connection) -> None:
    """Has stored the file, and noted it, when the way back breaks."""
    connection.send(Kind.START)
    while connection.receive(LIMIT_S).kind is Kind.DATA:
        continue
    connection.close()
    transfers.finish(transfer.pk, TransferState.COMPLETED, done_bytes=len(CONTENT))


def test_an_end_that_is_not_heard_is_the_workers_to_tell(
    play: Callable[[Part], Workers], job: HpcJob
) -> None:
    workers = play(vanishes_with_all)
    with pytest.raises(errors.TransferBroken):
        files.upload(job, "in", len(CONTENT), [CONTENT])
    workers.join()
    assert row().state == TransferState.COMPLETED


def test_nobody_there_is_told_with_what_to_do(
    play: Callable[[Part], Workers], job: HpcJob, settings: Settings, monkeypatch: Any
) -> None:
    settings.HPC_TRANSFER_START_S = 0.2
    play(takes([]))
    monkeypatch.setattr(publish, "start_transfer", lambda *_: None)
    with pytest.raises(errors.Timeout, match="-Q files"):
        files.download(job, "out")
    assert row().state == TransferState.FAILED


def test_a_cluster_that_does_not_open_the_file_is_told(
    play: Callable[[Part], Workers], job: HpcJob, settings: Settings
) -> None:
    settings.HPC_TRANSFER_START_S = 3
    play(lambda transfer, connection: watched(connection))
    with pytest.raises(errors.Timeout, match="did not open the file within 3 s"):
        files.download(job, "out")
    assert row().state == TransferState.FAILED


def test_a_queue_out_of_reach_ends_the_row(play: Callable[[Part], Workers], job: HpcJob) -> None:
    with pytest.raises(errors.QueueUnreachable):
        files.download(job, "out")
    assert row().state == TransferState.FAILED
    assert "Redis" in row().failure


def test_a_cluster_gives_the_files_of_its_own_jobs(
    play: Callable[[Part], Workers], job: HpcJob, cluster: HpcCluster, make_job: MakeJob
) -> None:
    play(sends(CONTENT))
    assert b"".join(files.download(cluster, f"{job.tag}/a/b")) == CONTENT
    assert (row().job_id, row().path) == (job.pk, "a/b")
    other = clusters.register(
        name="other", host_name="localhost", carrier="local", client_path="/opt/hpc"
    )
    elsewhere = make_job(JobStatus.COMPLETED, cluster=other, attempt=1)
    for path in (f"{elsewhere.tag}/a", job.tag, f"{job.tag}/", "", "../a", b"\xff/a", "a\0/b"):
        with pytest.raises((errors.NotFound, errors.Invalid)):
            files.download(cluster, path)
    assert FileTransfer.objects.count() == 1


def test_names_that_are_no_text_are_kept_exactly(
    play: Callable[[Part], Workers], job: HpcJob
) -> None:
    for path in (b"a/\xff\n", "a/\udcff\n"):
        play(sends(b"x"))
        download = files.download(job, path)
        assert b"".join(download) == b"x"
        found = FileTransfer.objects.get(pk=download.transfer_id)
        assert transfers.exact_path(found) == b"a/\xff\n"
        assert (found.path, download.name) == ("a/�\n", "�\n")
    for wrong in ("a\0b", "\ud800", b"x" * 4097):
        with pytest.raises(errors.Invalid, match="path"):
            files.download(job, wrong)


def test_jobs_without_files_are_not_asked_for(job: HpcJob, make_job: MakeJob) -> None:
    for without in (make_job(), make_job(JobStatus.DELETED, cluster=job.cluster, attempt=1)):
        with pytest.raises(errors.NotFound):
            files.download(without, "out")
    assert not FileTransfer.objects.exists()


# The rows -----------------------------------------------------------------------------------------


def begin(job: HpcJob, **columns: Any) -> FileTransfer:
    assert job.cluster is not None
    return transfers.begin(job, job.cluster, Direction.DOWNLOAD, "out", **columns)


def age(found: FileTransfer, seconds: float) -> None:
    FileTransfer.objects.filter(pk=found.pk).update(changed_at=Now() - timedelta(seconds=seconds))


def test_over_the_bound_of_the_cluster_is_busy(job: HpcJob, settings: Settings) -> None:
    settings.HPC_TRANSFERS_PER_CLUSTER = 2
    first, second = begin(job), begin(job)
    with pytest.raises(errors.Busy, match="HPC_TRANSFERS_PER_CLUSTER") as caught:
        begin(job)
    assert 1 <= caught.value.retry_after_s <= 10
    transfers.finish(first.pk, TransferState.COMPLETED)
    begin(job)
    age(second, transfers.SILENCE_S + 1)
    begin(job)
    other = clusters.register(
        name="other", host_name="localhost", carrier="local", client_path="/opt/hpc"
    )
    transfers.begin(None, other, Direction.DOWNLOAD, "out")


def test_over_the_bound_of_the_user_is_busy(
    job: HpcJob, settings: Settings, admin_user: User, django_user_model: Any
) -> None:
    settings.HPC_TRANSFERS_PER_USER = 1
    begin(job, owner=admin_user)
    with pytest.raises(errors.Busy, match="user admin"):
        begin(job, owner=admin_user)
    begin(job, owner=django_user_model.objects.create_user("other"))
    begin(job)


def test_of_many_at_once_as_many_begin_as_may(
    job: HpcJob, settings: Settings, admin_user: User
) -> None:
    settings.HPC_TRANSFERS_PER_CLUSTER = 3
    made = at_once(*[lambda: begin(job)] * 8)
    assert sum(isinstance(one, FileTransfer) for one in made) == 3
    FileTransfer.objects.all().delete()
    settings.HPC_TRANSFERS_PER_USER = 2
    made = at_once(*[lambda: begin(job, owner=admin_user)] * 8)
    assert sum(isinstance(one, FileTransfer) for one in made) == 2


def test_a_transfer_within_a_transaction_is_refused_with_what_to_do(job: HpcJob) -> None:
    with pytest.raises(errors.Invalid, match="non_atomic_requests"), transaction.atomic():
        begin(job)
    assert not FileTransfer.objects.exists()


def test_of_many_workers_one_claims(job: HpcJob) -> None:
    found = begin(job)
    token = transfers.new_token(found)
    won = at_once(*[lambda: transfers.claim(str(found.pk), str(token), "w")] * 6)
    assert sum(isinstance(one, FileTransfer) for one in won) == 1
    assert (row().state, row().worker) == (TransferState.RUNNING, "w")
    with pytest.raises(errors.Refused, match="used before"):
        transfers.claim(found.pk, token, "w")


def test_a_token_counts_for_its_own_transfer_and_a_minute(job: HpcJob) -> None:
    found, other = begin(job), begin(job)
    token = transfers.new_token(found)
    for pair in ((other.pk, token), (found.pk, uuid4()), ("x", "y"), (found.pk, "../x")):
        with pytest.raises(errors.Refused):
            transfers.claim(*pair, "w")
    old = Now() - timedelta(seconds=transfers.TOKEN_LIFE_S + 1)
    WebsocketToken.objects.update(timestamp=old)
    with pytest.raises(errors.Refused, match="older than 60 s"):
        transfers.claim(found.pk, token, "w")
    WebsocketToken.objects.update(timestamp=Now())
    transfers.finish(found.pk, TransferState.CANCELLED)
    with pytest.raises(errors.Refused, match="over"):
        transfers.claim(found.pk, token, "w")


def test_progress_keeps_what_is_active_fresh_and_nothing_else(job: HpcJob) -> None:
    live, stalled, over = (begin(job) for _ in range(3))
    transfers.finish(over.pk, TransferState.FAILED, failure="no")
    for one in (live, stalled, over):
        age(one, 50)
    assert transfers.progress({live.pk: 5 << 30, stalled.pk: 0, over.pk: 7, uuid4(): 1}) == 2
    assert transfers.progress({}) == 0
    fresh = FileTransfer.objects.filter(changed_at__gt=Now() - timedelta(seconds=40))
    assert {one.pk: one.done_bytes for one in fresh} == {live.pk: 5 << 30, stalled.pk: 0}


def test_who_could_not_tell_for_a_minute_takes_the_transfer_back(job: HpcJob) -> None:
    """The database was away, and upkeep was quicker than the worker when it was back."""
    carried, finished, gone = (begin(job) for _ in range(3))
    for one in (carried, finished, gone):
        age(one, transfers.SILENCE_S + 1)
    assert transfers.expire() == 3
    assert transfers.progress({carried.pk: 7}) == 1
    assert transfers.finish(finished.pk, TransferState.COMPLETED, done_bytes=9)
    for one in (carried, finished, gone):
        one.refresh_from_db()
    assert (carried.state, carried.failure, carried.finished_at) == ("running", "", None)
    assert (finished.state, finished.failure) == ("completed", "")
    assert gone.state == TransferState.FAILED


def test_a_transfer_ends_once_and_takes_only_what_makes_sense(job: HpcJob) -> None:
    found = begin(job)
    hostile = {"sha256": "x" * 200, "etag": "e\0" * 200, "failure": "no\0", "size_bytes": 1 << 70}
    assert transfers.finish(found.pk, TransferState.FAILED, done_bytes=-1, **hostile)
    assert not transfers.finish(found.pk, TransferState.COMPLETED, done_bytes=4)
    found.refresh_from_db()
    assert (found.state, found.failure, found.sha256) == (TransferState.FAILED, "no�", "")
    assert (found.size_bytes, found.done_bytes, len(found.etag)) == (None, 0, 128)
    assert found.finished_at is not None


def test_silent_transfers_are_ended_by_upkeep(job: HpcJob) -> None:
    silent, live, whole = begin(job), begin(job), begin(job)
    transfers.finish(whole.pk, TransferState.COMPLETED)
    for one in (silent, whole):
        age(one, transfers.SILENCE_S + 1)
    assert upkeep.run("a")
    states = {one.pk: one.state for one in FileTransfer.objects.all()}
    assert states[silent.pk] == TransferState.FAILED
    assert states[live.pk] == TransferState.PENDING
    assert states[whole.pk] == TransferState.COMPLETED
    silent.refresh_from_db()
    assert "gone" in silent.failure

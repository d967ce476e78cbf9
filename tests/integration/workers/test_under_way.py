"""What is told of the transfers of one process, whatever the database does, and how they end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection

from controller import errors
from controller.models import FileTransfer, HpcCluster
from controller.models.transfer import Direction, TransferState
from controller.relay.socket_connection import SocketConnection
from controller.services import clusters, transfers
from ops import processes
from workers.operations.under_way import STOPPED, UnderWay, WebGone

pytestmark = pytest.mark.django_db(transaction=True)
REPORT_S = 0.05
LIMIT_S = 20.0


@pytest.fixture
def relay() -> Iterator[tuple[SocketConnection, SocketConnection]]:
    """The worker's end, and the web's."""
    ours, theirs = map(SocketConnection, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def transfer() -> FileTransfer:
    cluster: HpcCluster = clusters.register(
        name="hpc", host_name="localhost", carrier="local", client_path="/opt/hpc"
    )
    return FileTransfer.objects.create(
        cluster=cluster, direction=Direction.DOWNLOAD, path="x", state=TransferState.RUNNING
    )


def wait(is_met: Callable[[], bool]) -> None:
    assert processes.wait_until(is_met, LIMIT_S, step_s=0.02)


def done_bytes(transfer: FileTransfer) -> int:
    transfer.refresh_from_db()
    connection.close()
    return transfer.done_bytes


def test_progress_is_told_again_after_the_database_was_away_and_stalled_rows_stay_fresh(
    transfer: FileTransfer,
    relay: tuple[SocketConnection, SocketConnection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way, failures = UnderWay(REPORT_S), iter([1, 2])
    told = transfers.progress

    def progress(done: Mapping[UUID, int]) -> int:
        if next(failures, None):
            raise OperationalError("The database is away.")
        return told(done)

    monkeypatch.setattr(transfers, "progress", progress)
    with under_way.carrying(transfer.pk, relay[0]) as carried:
        carried.done_bytes = 17
        wait(lambda: done_bytes(transfer) == 17)
        before = transfer.changed_at
        wait(lambda: done_bytes(transfer) == 17 and transfer.changed_at > before)
    assert next(failures, None) is None
    assert under_way.count() == 0


def test_an_end_that_can_not_be_stored_is_stored_later(
    transfer: FileTransfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, failures = UnderWay(REPORT_S), iter([1, 2, 3])
    finish = transfers.finish

    def fail(*given: object, **columns: object) -> bool:
        if next(failures, None):
            raise OperationalError("The database is away.")
        return finish(*given, **columns)  # type: ignore[arg-type]

    monkeypatch.setattr(transfers, "finish", fail)
    under_way.finish(transfer.pk, TransferState.COMPLETED, done_bytes=5)
    wait(lambda: done_bytes(transfer) == 5)
    assert transfer.state == TransferState.COMPLETED


def test_a_worker_that_stops_stores_the_ends_that_it_could_not_store(
    transfer: FileTransfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, finish = UnderWay(report_s=600), transfers.finish

    def fail(*given: object, **columns: object) -> bool:
        raise OperationalError("The database is away.")

    monkeypatch.setattr(transfers, "finish", fail)
    under_way.finish(transfer.pk, TransferState.COMPLETED, done_bytes=5)
    monkeypatch.setattr(transfers, "finish", finish)
    under_way.last_words(LIMIT_S)
    assert done_bytes(transfer) == 5
    assert transfer.state == TransferState.COMPLETED


def test_beyond_the_bound_one_is_told_so_at_once(
    relay: tuple[SocketConnection, SocketConnection],
) -> None:
    under_way = UnderWay()
    under_way.set_up(9)
    with under_way.carrying(uuid4(), relay[0]):
        with pytest.raises(errors.Busy, match="HPC_FILES_THREADS") as caught:
            under_way.carrying(uuid4(), relay[0]).__enter__()
        assert caught.value.retry_after_s > 0
    with under_way.carrying(uuid4(), relay[0]):
        assert under_way.count() == 1


def test_a_worker_that_stops_ends_who_stands_still_and_takes_no_more(
    relay: tuple[SocketConnection, SocketConnection],
) -> None:
    """Nobody reads at the other end: no word gets through, and the relay is closed."""
    under_way = UnderWay()
    ended: list[str] = []

    def carry() -> None:
        with under_way.carrying(uuid4(), relay[0]) as carried:
            with pytest.raises(WebGone):
                while True:
                    carried.receive()
            ended.append(carried.stopped)

    thread = threading.Thread(target=carry)
    thread.start()
    wait(lambda: under_way.count() == 1)
    under_way.close()
    thread.join(LIMIT_S)
    assert ended == [STOPPED]
    with pytest.raises(errors.Unavailable):
        under_way.carrying(uuid4(), relay[0]).__enter__()

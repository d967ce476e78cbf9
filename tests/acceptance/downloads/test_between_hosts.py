"""Downloads where web servers and files workers meet in Redis, and a network is in between."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from .house import BROKEN, LIMIT_S, LONG_BYTES, MIB, House, Portal, serving

pytestmark = pytest.mark.timeout(240)

STALL_S = 12
"""More than a loaded machine stands still; what a killed worker costs here."""
MARK = b"<here a bit turns over on the way>"


class Network:
    """What is between the worker and Redis; it may damage what passes by."""

    def __init__(self, port: int) -> None:
        self.is_bad = False
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                worker, _ = self._listener.accept()
                redis = socket.create_connection(("127.0.0.1", self._port))
                self._open += [worker, redis]
                for ends in ((worker, redis), (redis, worker)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 18):
                if self.is_bad:
                    piece = piece.replace(MARK, MARK.upper())
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def network(house: House) -> Iterator[Network]:
    made = Network(house.stack.redis.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def far_portal(house: House) -> Iterator[Portal]:
    with serving(house, settings_of(house, house.stack.redis.port)) as made:
        yield made


@pytest.fixture
def far(far_portal: Portal, network: Network) -> Portal:
    """A files worker on the other side of the network answers."""
    network.is_bad = False
    far_portal.house.wait_files(settings_of(far_portal.house, network.port))
    return far_portal


def settings_of(house: House, port: int) -> dict[str, str]:
    url = f"redis://:{house.stack.redis.password}@127.0.0.1:{port}/1"
    return {"HPC_FILE_RELAY_URL": url, "HPC_TRANSFER_STALL_S": str(STALL_S)}


def test_file_comes_whole(far: Portal) -> None:
    content = random.Random(7).randbytes(40 * MIB + 1)
    far.house.put("random", content)
    for reader in far.open("random"):
        assert reader.read_all() == hashlib.sha256(content).hexdigest()
    far.house.wait_states(2, "completed")


def test_file_that_is_damaged_on_the_way_is_seen_to_be_broken(
    far: Portal, network: Network
) -> None:
    # Many, since some go through the network in two pieces.
    far.house.put("marked", (MARK + b"." * 1000) * 4000)
    network.is_bad = True
    for reader in far.open("marked"):
        with closing(reader), pytest.raises(BROKEN):
            reader.read_all()
    for row in far.house.wait_states(2, "failed"):
        assert "its sha256 differs" in row.failure, row.failure


def test_nothing_is_read_for_somebody_who_left(far: Portal) -> None:
    path = far.house.put("long", b"begin", LONG_BYTES)
    readers = far.open("long")
    for reader in readers:
        reader.read(MIB)
    for reader in readers:
        reader.close()
    far.house.stack.wait(lambda: not far.house.readers_of(path), "the readers to stop", LIMIT_S)
    far.house.wait_states(2, "cancelled")


def test_worker_that_is_killed_breaks_its_downloads(far: Portal) -> None:
    far.house.put("long", b"begin", LONG_BYTES)
    readers = far.open("long")
    for reader in readers:
        reader.read(MIB)
    far.house.files_worker.send(signal.SIGKILL)
    far.house.stack.wait(lambda: far.house.files_worker.has_ended, "the worker to end")
    for reader in readers:
        with closing(reader), pytest.raises(BROKEN):
            reader.read_all()
    far.house.wait_states(2, "failed")

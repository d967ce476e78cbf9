"""Files on their way through a files worker, from and to a cluster on this machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.models import FileTransfer, HpcCluster, HpcJob
from controller.models.transfer import TransferState
from controller.services import files
from ops import processes
from tests import stack as stacks

LIMIT_S = 30.0
GONE_LIMIT_S = 6.0
MIB = 1 << 20


class Place:
    """A job's directory on a cluster that no link goes to."""

    def __init__(self, stack: stacks.Stack, name: str = "local") -> None:
        self.stack = stack
        self.cluster: HpcCluster = stack.add_cluster(name)
        self.job = HpcJob.objects.create(cluster=self.cluster, attempt=1)
        self.directory = stack.client_path / "jobs" / self.job.tag
        self.directory.mkdir(parents=True)

    def put(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def sparse(self, name: str, size_bytes: int) -> Path:
        path = self.put(name, b"")
        os.truncate(path, size_bytes)
        return path

    def readers(self) -> list[int]:
        """The processes on the cluster that serve files of it."""
        words = f"\0files\0test.{self.cluster.pk}\0".encode()
        return [pid for pid in processes.pids() if words in processes_line(pid)]

    def row(self) -> FileTransfer:
        return FileTransfer.objects.latest("created_at")

    def wait_state(self, *states: TransferState) -> FileTransfer:
        self.stack.wait(lambda: self.row().state in states, f"the transfer to be {states}")
        return self.row()


def processes_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def place(shared_stack: stacks.Stack) -> Iterator[Place]:
    made = Place(shared_stack, f"c{time.monotonic_ns()}")
    yield made
    assert made.row().state != TransferState.RUNNING


CONTENT = hashlib.shake_128(b"content").digest(3 * MIB + 17)


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

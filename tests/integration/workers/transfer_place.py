"""A cluster on this machine with one job, whose files go to and fro."""

from __future__ import annotations

import os
from pathlib import Path

from controller.models import FileTransfer, HpcCluster, HpcJob
from controller.models.transfer import TransferState
from controller.services import files
from tests import stack as stacks

MIB = 1 << 20
BIG = 64 * MIB
"""More than all buffers of a way together hold."""
GONE_LIMIT_S = 6.0


class Place:
    """A job's directory."""

    def __init__(self, stack: stacks.Stack, cluster: HpcCluster) -> None:
        self.stack = stack
        self.cluster = cluster
        self.job = HpcJob.objects.create(cluster=self.cluster, attempt=1)
        self.directory = stack.client_path / "jobs" / self.job.tag
        self.directory.mkdir(parents=True)

    def put(self, name: str, content: bytes = b"", size_bytes: int = 0) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        if size_bytes:
            os.truncate(path, size_bytes)
        return path

    def stalled(self, name: str = "big") -> files.Download:
        """A download that nobody reads from, and that stands still."""
        if not (self.directory / name).exists():
            self.put(name, size_bytes=BIG)
        return files.download(self.job, name)

    def clients(self) -> list[int]:
        """The processes on the cluster that serve files of it."""
        # The path, because the key alone is that of every other test's first cluster too.
        program = os.fsencode(self.stack.client_path / "client.py")
        words = program + f"\0files\0test.{self.cluster.pk}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if words in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def row(self) -> FileTransfer:
        return FileTransfer.objects.filter(cluster=self.cluster).latest("created_at")

    def wait_state(self, state: TransferState) -> FileTransfer:
        self.stack.wait(lambda: self.row().state == state, f"the transfer to be {state.value}")
        return self.row()

"""A cluster that files are asked of over SSH, as a database knows it."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from controller import errors, publish
from controller.models import FileTransfer, HpcCluster, HpcJob, LoginAttempt
from controller.models.transfer import TransferState
from controller.services import clusters, host_keys
from ops import processes, sshd
from workers.operations import files

from .site import Site

PASSWORD = "first password"


class Place:
    """One account with a client, one server that nobody else uses, and a job that left a file."""

    def __init__(self, site: Site, server: sshd.Sshd, account: sshd.Account, **fields: Any) -> None:
        self.site = site
        self.server = server
        self.account = account
        self.cluster: HpcCluster = clusters.register(
            **{
                "name": account.name,
                "host_name": server.address,
                "port": server.port,
                "carrier": "ssh",
                "username": account.name,
                "key": site.key.read_text(),
                "client_path": str(account.home / "client"),
                "python": "/usr/bin/python3",
                **fields,
            }
        )
        shown = [(pin.key_type, pin.fingerprint, server.address) for pin in site.pins()]
        host_keys.record(self.cluster.pk, shown)
        host_keys.confirm(self.cluster, [key.pk for key in self.cluster.host_keys.all()])
        self.job = HpcJob.objects.create(cluster=self.cluster, attempt=1)
        self._make_files()

    @property
    def directory(self) -> Path:
        """The job's."""
        return self.account.home / "client" / "jobs" / self.job.tag

    def _make_files(self) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / "stdout.log").write_text("hello\n")
        self.site.give(self.account, self.account.home)

    def read(self) -> bytes:
        return base64.b64decode(files.read(self.job.pk, "stdout.log", 0, 100)["data_b64"])

    def refusal(self) -> errors.HpcError:
        """What a portal hears of a question that fails."""
        with pytest.raises(errors.HpcError) as caught:
            publish._unpacked(files.answer(lambda: {"read": self.read()}))
        return caught.value

    @property
    def logins(self) -> tuple[int, int]:
        """Counted here, and by the server."""
        accepted = self.server.log.count("Accepted publickey")
        return LoginAttempt.objects.filter(cluster=self.cluster).count(), accepted

    def sessions(self) -> list[int]:
        """The server's processes for those who are logged in."""
        assert self.server.child is not None
        return sshd.family(self.server)[1:]

    def clients(self) -> list[int]:
        """The processes that serve files."""
        words = f"\0files\0test.{self.cluster.pk}\0".encode()
        return [pid for pid in self.sessions() if words in _command_of(pid)]

    def cut(self) -> None:
        """End each session on the server's side, as an admin does."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):  # its child, that went with it
                os.kill(pid, signal.SIGKILL)

    def put(self, name: str, content: bytes = b"", size_bytes: int = 0) -> None:
        """A file of the job; of so many bytes, if that is said."""
        path = self.directory / name
        path.write_bytes(content)
        if size_bytes:
            os.truncate(path, size_bytes)
        self.site.give(self.account, self.directory)

    def wait_state(self, state: TransferState, count: int = 1) -> None:
        """Wait until so many transfers have come to it."""
        rows = FileTransfer.objects.filter(cluster=self.cluster, state=state)
        assert processes.wait_until(lambda: rows.count() == count, 30.0), rows.values()


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""

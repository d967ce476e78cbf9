"""A whole system for downloads: database, Redis, workers, web servers, sshd, an account, jobs."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from controller import errors
from controller.lifecycle import JobStatus
from controller.models import FileTransfer, HpcJob
from controller.services import files
from ops import processes, services, sshd
from tests.integration.ssh import server_side
from tests.integration.ssh.site import Site
from tests.stack import CHECKOUT, Stack

MIB = 1 << 20
LIMIT_S = 60.0
LONG_BYTES = 300 * MIB
"""More than fits into all buffers on the way."""
BROKEN = (http.client.IncompleteRead, ConnectionResetError)
ASGI = ("uvicorn", "tests.acceptance.downloads.portal:application", "--port", "{port}")
WSGI = ("tests.acceptance.downloads.portal", "{port}")


class Reader:
    """Somebody who downloads over HTTP, at a pace of his own."""

    def __init__(self, port: int, path: str, method: str = "GET") -> None:
        # Small buffers: one who does not read stands still soon.
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self._connection.request(method, quote(path))
        self.response = self._connection.getresponse()
        self.digest = hashlib.sha256()
        self.received = 0

    @property
    def status(self) -> int:
        return self.response.status

    def problem(self) -> tuple[int, str, str]:
        """Status, code and words of an answer that is no file."""
        told = json.loads(self.response.read())["error"]
        self.close()
        return self.status, told["code"], told["message"]

    def read(self, amount: int) -> int:
        """Read so many bytes, or to the end; how many came. Raises IncompleteRead."""
        before = self.received
        while self.received - before < amount:
            piece = self.response.read(min(MIB, amount - (self.received - before)))
            if not piece:
                break
            self.digest.update(piece)
            self.received += len(piece)
        return self.received - before

    def read_all(self) -> str:
        """Read to the end; the sha256 of all that came. Raises IncompleteRead."""
        while self.read(64 * MIB):
            continue
        if self.response.length:
            # http.client raises of itself only where it was asked for everything at once.
            raise http.client.IncompleteRead(b"", self.response.length)
        self.close()
        return self.digest.hexdigest()

    def close(self) -> None:
        """Go away."""
        self.response.close()
        self._connection.close()


@dataclass(frozen=True)
class Web:
    """A web server of the portal."""

    name: str
    child: processes.Child
    port: int

    def open(self, path: str, method: str = "GET") -> Reader:
        return Reader(self.port, path, method)


class House:
    """The parts that all tests share; `job` has a directory on the cluster to put files into."""

    def __init__(self, stack: Stack, site: Site) -> None:
        self.stack = stack
        self.site = site
        self.portal = server_side.Portal(stack, site)
        self.server = site.new_server()
        self.account = site.add_account("files")
        stack.start_worker()
        self.cluster, _ = self.portal.linked(self.server, self.account)
        self.job = self.new_job()
        self.start_files_worker({})

    @property
    def client_path(self) -> Path:
        return self.account.home / "client"

    def new_job(self) -> HpcJob:
        """A job that is over, with its directory."""
        made = HpcJob.objects.create(cluster=self.cluster)
        HpcJob._base_manager.filter(pk=made.pk).update(
            job_status=JobStatus.COMPLETED.value, attempt=1
        )
        made.refresh_from_db()
        directory = self.directory(made)
        directory.mkdir(parents=True)
        self.site.give(self.account, directory)
        return made

    def directory(self, job: HpcJob | None = None) -> Path:
        return self.client_path / "jobs" / (job or self.job).tag

    def put(self, name: str, content: bytes, size_bytes: int = 0) -> Path:
        """A file in the job's directory; with a hole at its end up to `size_bytes`."""
        path = self.directory() / name
        path.write_bytes(content)
        if size_bytes:
            os.truncate(path, size_bytes)
        self.site.give(self.account, path)
        return path

    # Files workers and web servers ----------------------------------------------------------------

    def start_files_worker(self, relay: Mapping[str, str]) -> None:
        """The one files worker, with these settings of the relay; it may still be starting."""
        self._relay = dict(relay)
        self.files_worker = self.stack.start_worker(self._relay, queues="files")

    def wait_files(self, relay: Mapping[str, str]) -> None:
        """Wait until a files worker with these settings answers; start it if need be."""
        if self._relay != relay and not self.files_worker.has_ended:
            self.stack.stop_worker(self.files_worker, LIMIT_S)
        if self.files_worker.has_ended:
            self.start_files_worker(relay)

        def is_answered() -> bool:
            with contextlib.suppress(errors.HpcError):
                return bool(files.list_directory(self.job))
            return False

        self.stack.wait(is_answered, "files to be listed", 2 * LIMIT_S)

    @contextmanager
    def web(
        self, name: str, argv: Sequence[str], extra: Mapping[str, str] | None = None
    ) -> Iterator[Web]:
        """A web server that answers; `argv` is a Python module and words for it."""
        port = processes.free_port()
        log = self.stack.directory / f"{name}.log"
        child = processes.start(
            name,
            [sys.executable, "-m", *(word.format(port=port) for word in argv)],
            environment=self.stack.environment(extra),
            directory=CHECKOUT,
            log=log,
        )
        try:
            self.stack.wait(lambda: child.has_ended or answers(port), f"{name} to answer")
            assert not child.has_ended, services.last_lines(log)
            yield Web(name, child, port)
        finally:
            processes.stop(child)

    # What can be seen of a transfer ---------------------------------------------------------------

    def wait_states(self, count: int, *states: str, limit_s: float = LIMIT_S) -> list[FileTransfer]:
        """Wait until the newest `count` transfers have one of these states; they themselves."""
        rows: list[FileTransfer] = []

        def are_there() -> bool:
            rows[:] = FileTransfer.objects.order_by("-created_at")[:count]
            return all(row.state in states for row in rows)

        self.stack.wait(are_there, f"{count} transfers to be {states}", limit_s)
        return rows

    def readers_of(self, path: Path) -> list[int]:
        """The processes on the cluster that have the file open."""
        return [pid for pid in sshd.family(self.server)[1:] if has_open(pid, path)]

    def session_of(self, pid: int) -> list[int]:
        """The server's processes for the login that the process belongs to."""
        assert self.server.child is not None
        found = []
        while (pid := parent_of(pid)) != self.server.child.pid:
            found.append(pid)
        return found


@dataclass(frozen=True)
class Portal:
    """Two web servers, for one relay."""

    house: House
    asgi: Web
    wsgi: Web

    def open(self, name: str) -> list[Reader]:
        """The file, by both."""
        place = f"{self.house.job.pk}/{name}"
        readers = [self.asgi.open(f"/async/{place}"), self.wsgi.open(f"/sync/{place}")]
        assert [reader.status for reader in readers] == [200, 200]
        return readers


@contextmanager
def serving(house: House, relay: Mapping[str, str]) -> Iterator[Portal]:
    """Two web servers with these settings of the relay."""
    with house.web("asgi", ASGI, relay) as asgi, house.web("wsgi", WSGI, relay) as wsgi:
        yield Portal(house, asgi, wsgi)


def has_open(pid: int, path: Path) -> bool:
    found = False
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found = found or link.readlink() == path
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/list/0/")
        return connection.getresponse().status == 404
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def rss_mib(pid: int) -> float:
    """Resident memory of a process; 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB

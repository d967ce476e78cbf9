"""Files from a cluster to a browser, through all that is in between: whole, or visibly broken.

Everything is real: PostgreSQL, Redis, workers, web servers for ASGI and for WSGI, sshd.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.lifecycle import JobStatus
from controller.models import HpcJob
from controller.services import clusters, host_keys
from ops import services, sshd
from tests import stack as stacks
from tests.archives import doctored
from tests.integration.ssh.site import Site
from workers.links import bridge, client_archive, upload

from .downloads import LIMIT_S, MIB, House, Reader, Web, rss_mib

pytestmark = pytest.mark.timeout(400)

LARGE_BYTES = (4 << 30) + 5 * MIB + 7
GROWTH_MIB = 32
LEFT_LIMIT_S = 6.0
"""Until nobody reads for somebody who left: three times the goal."""
STALLED = 20
MOST = 24
"""HPC_TRANSFERS_PER_CLUSTER, as it is by default."""
LONG_BYTES = 300 * MIB
"""More than fits into all buffers on the way."""
SETTINGS = {"HPC_LOGINS_PER_MINUTE": "600", "HPC_LOGINS_PER_HOUR": "36000"}
BROKEN = (http.client.IncompleteRead, ConnectionResetError)
ASGI = ("uvicorn", "tests.acceptance.file_site:application", "--port", "{port}")
WSGI = ("tests.acceptance.file_site", "{port}")


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


@pytest.fixture(scope="module")
def site(service_directory: Path) -> Iterator[Site]:
    directory = service_directory / "downloads"
    directory.mkdir(mode=0o755)
    made = Site(directory)
    yield made
    assert not made.close()


@pytest.fixture(scope="module")
def house(
    site: Site, postgres_server: services.Postgres, django_db_blocker: Any
) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="hpc-t-", dir="/tmp") as place:
        directory = Path(place)
        redis = services.Redis(directory / "redis", with_port=True)
        redis.start()
        url = postgres_server.create_database("downloads")
        settings = {**SETTINGS, "HPC_IPC_UNIX_SOCKET": f"{directory}/relay"}
        try:
            with (
                django_db_blocker.unblock(),
                stacks.running(directory, redis, url, settings) as made,
            ):
                yield House(made, site)
        finally:
            redis.stop()


@pytest.fixture(scope="module")
def portal(house: House) -> Iterator[Portal]:
    house.start_files_worker()
    with house.web("asgi", ASGI) as asgi, house.web("wsgi", WSGI) as wsgi:
        yield Portal(house, asgi, wsgi)
    house.stack.stop_worker(house.files_worker)


@pytest.fixture
def ready(portal: Portal) -> Portal:
    """A files worker answers, and knows a process to ask."""
    portal.house.wait_files()
    return portal


# Whole --------------------------------------------------------------------------------------------


def test_file_of_more_than_4_gib_leaves_memory_flat(
    ready: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    house = ready.house
    path = house.put("large", b"begin", LARGE_BYTES)
    with path.open("r+b") as file:
        file.seek(LARGE_BYTES - 3)
        file.write(b"end")
    house.put("small", b"x" * 8 * MIB)
    for reader in ready.open("small"):
        reader.read_all()
    reader = ready.asgi.open(f"/async/{house.job.pk}/large")
    reader.read(64 * MIB)
    (on_cluster,) = house.readers_of(path)
    pids = {"web": ready.asgi.child.pid, "worker": house.files_worker.pid, "cluster": on_cluster}
    before = {name: rss_mib(pid) for name, pid in pids.items()}
    growth = dict.fromkeys(pids, 0.0)
    begun_at = time.monotonic()
    while reader.read(128 * MIB):
        for name, pid in pids.items():
            growth[name] = max(growth[name], rss_mib(pid) - before[name])
    took_s = time.monotonic() - begun_at
    with capsys.disabled():
        shown = {name: f"{mib:.1f} MiB" for name, mib in growth.items()}
        print(f"\n{LARGE_BYTES / MIB / took_s:.0f} MiB/s, memory has grown by {shown}")  # noqa: T201
    assert reader.read_all() == sha256_of_large()
    assert max(growth.values()) < GROWTH_MIB, growth
    (row,) = house.wait_states(1, "completed")
    assert (row.size_bytes, row.done_bytes) == (LARGE_BYTES, LARGE_BYTES)
    assert row.sha256 == reader.digest.hexdigest()


def sha256_of_large() -> str:
    digest, zeros = hashlib.sha256(b"begin"), bytes(MIB)
    left = LARGE_BYTES - 5 - 3
    while left:
        digest.update(zeros[: min(MIB, left)])
        left -= min(MIB, left)
    digest.update(b"end")
    return digest.hexdigest()


@pytest.mark.parametrize("name", ["random", "ä 漢.dat", "empty"])
def test_file_comes_whole_by_either_kind_of_server_and_view(ready: Portal, name: str) -> None:
    house = ready.house
    content = b"" if name == "empty" else random.Random(7).randbytes(20 * MIB + 1)
    house.put(name, content)
    sha256 = hashlib.sha256(content).hexdigest()
    job, cluster = house.job, house.cluster
    views = (f"sync/{job.pk}", f"async/{job.pk}", f"cluster/{cluster.pk}/{job.tag}")
    for server in (ready.asgi, ready.wsgi):
        for view in views:
            reader = server.open(f"/{view}/{name}")
            assert reader.response.headers["Content-Length"] == str(len(content))
            assert reader.response.headers["ETag"].startswith('W/"')
            assert reader.read_all() == sha256, (server.name, view)
    assert {row.sha256 for row in house.wait_states(6, "completed")} == {sha256}


def test_daemon_that_dies_and_is_upgraded_breaks_no_transfer(ready: Portal) -> None:
    house, stack = ready.house, ready.house.stack
    house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    pid = stack.wait_up(house.cluster).daemon_pid
    stack.kill_daemon(house.cluster)
    stack.wait(lambda: stack.link(house.cluster).daemon_pid != pid, "another daemon")
    replace_the_client(house)
    stack.wait_up(house.cluster)
    sha256 = hashlib.sha256(b"begin".ljust(LONG_BYTES, b"\0")).hexdigest()
    for reader in readers:
        assert reader.read_all() == sha256
    house.wait_states(2, "completed")


def replace_the_client(house: House) -> None:
    """Put another build there, as an upgrade does, and have it started."""
    older = doctored(
        client_archive.build(),
        ("cluster_client/files.py", '"Ready for files."', '"Ready for files, as ever."'),
    )
    with house.site.carrier(house.server, house.account.name) as carrier:
        upload.put(carrier, bridge.Installation(str(house.client_path)), older)
    procedure = clusters.bootstrap(house.cluster)
    house.portal.wait_over(procedure, LIMIT_S)
    assert procedure.state == "done", procedure.detail
    steps = {step.name: step.outcome for step in procedure.steps.all()}
    assert steps["Upload the client"] == "done", steps


# Broken -------------------------------------------------------------------------------------------


def end_readers(house: House, path: Path) -> None:
    for pid in house.readers_of(path):
        os.kill(pid, signal.SIGKILL)


def cut_connection(house: House, path: Path) -> None:
    pids = [house.session_of(pid) for pid in house.readers_of(path)]
    for pid in {one for session in pids for one in session}:
        os.kill(pid, signal.SIGKILL)


def kill_worker(house: House, path: Path) -> None:
    house.files_worker.send(signal.SIGKILL)
    house.stack.wait(lambda: house.files_worker.has_ended, "the worker to end")


def stop_worker(house: House, path: Path) -> None:
    house.stack.stop_worker(house.files_worker, LIMIT_S)


def shrink(house: House, path: Path) -> None:
    os.truncate(path, 2 * MIB)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (end_readers, ""),
        (cut_connection, ""),
        (shrink, "shr"),
        (kill_worker, ""),
        (stop_worker, "worker was stopped"),
    ],
)
def test_transfer_that_breaks_is_seen_to_be_broken(
    ready: Portal, fault: Callable[[House, Path], None], words: str
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    assert len(house.readers_of(path)) == len(readers)
    fault(house, path)
    for reader in readers:
        with closing(reader), pytest.raises(BROKEN):
            reader.read_all()
    for row in house.wait_states(2, "failed"):
        assert words in row.failure
        assert row.failure.endswith("."), row.failure


def test_nothing_is_read_for_somebody_who_left(
    ready: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    assert len(house.readers_of(path)) == len(readers)
    left_at = time.monotonic()
    for reader in readers:
        reader.close()
    house.stack.wait(lambda: not house.readers_of(path), "the readers to stop", LEFT_LIMIT_S)
    took_s = time.monotonic() - left_at
    with capsys.disabled():
        print(f"\nnothing is read {took_s:.1f} s after the browsers have left")  # noqa: T201
    house.wait_states(2, "cancelled")


# Refused ------------------------------------------------------------------------------------------


def test_what_can_not_be_sent_is_told_before_the_status(ready: Portal) -> None:
    house = ready.house
    top = house.directory()
    (top / "sub").mkdir(exist_ok=True)
    os.mkfifo(top / "pipe")
    (top / "away").symlink_to("/etc/passwd")
    house.put("closed", b"x").chmod(0)
    unsent, job = HpcJob.objects.create(), house.job.pk
    expected = {
        f"{job}/missing": (404, "not_found", "missing"),
        f"{job}/sub": (403, "refused", "file"),
        f"{job}/pipe": (403, "refused", "file"),
        f"{job}/away": (403, "refused", "leads out"),
        f"{job}/../x": (403, "refused", ".."),
        f"{job}/closed": (403, "refused", "ermission"),
        f"{unsent.pk}/x": (404, "not_found", "never sent"),
    }
    for place, (status, code, words) in expected.items():
        for server, view in ((ready.asgi, "async"), (ready.wsgi, "sync")):
            told = server.open(f"/{view}/{place}").problem()
            assert told[:2] == (status, code), (place, told)
            assert words in told[2], (place, told)
    unknown = ready.wsgi.open(f"/cluster/{house.cluster.pk}/jaaaaaaaaaaaaaa/x").problem()
    assert unknown[:2] == (404, "not_found")


def test_host_that_is_not_there_is_told_with_when_to_come_again(ready: Portal) -> None:
    house = ready.house
    gone = clusters.register(
        name="gone", host_name="127.0.0.1", port=sshd.closed_port(), carrier="ssh",
        username=house.account.name, key=house.site.key.read_text(), client_path="/hpc",
    )  # fmt: skip
    pins = [(pin.key_type, pin.fingerprint, "127.0.0.1") for pin in house.site.pins()]
    host_keys.record(gone.pk, pins)
    host_keys.confirm(gone, [key.pk for key in gone.host_keys.all()])
    job = HpcJob.objects.create(cluster=gone, attempt=1)
    reader = ready.asgi.open(f"/async/{job.pk}/x")
    assert int(reader.response.headers["Retry-After"]) >= 1
    assert reader.problem()[:2] == (503, "host_unreachable")


def test_head_tells_the_size_and_sends_nothing(ready: Portal) -> None:
    ready.house.put("long", b"begin", LONG_BYTES)
    for server in (ready.asgi, ready.wsgi):
        with closing(server.open(f"/sync/{ready.house.job.pk}/long", "HEAD")) as reader:
            assert reader.response.headers["Content-Length"] == str(LONG_BYTES)
            assert reader.response.read() == b""
    ready.house.wait_states(2, "cancelled")


# Many ---------------------------------------------------------------------------------------------


def test_stalled_downloads_hold_up_nothing_else(
    ready: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    house = ready.house
    path = house.put("long", b"begin", LONG_BYTES)
    house.stack.wait_up(house.cluster)
    alone_s = submitted_after_s(house)
    with ThreadPoolExecutor(4) as pool:
        urls = [f"/async/{house.job.pk}/long"] * MOST
        readers = list(pool.map(ready.asgi.open, urls[:STALLED]))
        assert [reader.status for reader in readers] == [200] * STALLED
        beside_s = submitted_after_s(house)
        listed = ready.wsgi.open(f"/list/{house.job.pk}/")
        assert b'"long"' in listed.response.read()
        readers += pool.map(ready.asgi.open, urls[STALLED:])
    assert [reader.status for reader in readers] == [200] * MOST
    refused = ready.wsgi.open(f"/sync/{house.job.pk}/long")
    assert int(refused.response.headers["Retry-After"]) >= 1
    assert refused.problem()[:2] == (503, "busy")
    for reader in (*readers, listed):
        reader.close()
    house.stack.wait(lambda: not house.readers_of(path), "the readers to stop")
    house.wait_states(MOST, "cancelled")
    with capsys.disabled():
        print(f"\nsubmitted after {alone_s:.3f} s, beside {STALLED} downloads {beside_s:.3f} s")  # noqa: T201
    assert beside_s < 3 * alone_s + 1, (alone_s, beside_s)


def submitted_after_s(house: House, count: int = 7) -> float:
    """The median time from submit to SUBMITTED."""
    took = []
    for _ in range(count):
        begun_at = time.monotonic()
        job = house.stack.submit(house.cluster)
        job = house.stack.wait_status(
            job, JobStatus.SUBMITTED, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED
        )
        took.append(time.monotonic() - begun_at)
    return statistics.median(took)


def test_redis_that_stops_harms_no_transfer_under_way(ready: Portal) -> None:
    house = ready.house
    house.put("long", b"begin", LONG_BYTES)
    readers = ready.open("long")
    for reader in readers:
        reader.read(MIB)
    house.stack.redis.stop()
    try:
        for reader in readers:
            reader.read_all()
        for server in (ready.asgi, ready.wsgi):
            status, code, words = server.open(f"/sync/{house.job.pk}/long").problem()
            assert (status, code) == (503, "queue_unreachable"), words
    finally:
        house.stack.redis.start()
    rows = house.wait_states(4, "completed", "failed")
    assert sorted(row.state for row in rows) == ["completed", "completed", "failed", "failed"]

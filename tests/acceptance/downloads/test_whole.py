"""Files that come whole, whatever they are and whatever happens beside."""

from __future__ import annotations

import hashlib
import random
import time

import pytest

from controller.services import clusters
from tests.archives import doctored
from workers.links import bridge, client_archive, upload

from .house import LIMIT_S, LONG_BYTES, MIB, House, Portal, rss_mib

pytestmark = pytest.mark.timeout(240)

LARGE_BYTES = (4 << 30) + 5 * MIB + 7
GROWTH_MIB = 32


@pytest.mark.timeout(400)
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

    def is_replaced() -> bool:
        return stack.link(house.cluster).daemon_pid != pid

    stack.wait(is_replaced, "another daemon", 2 * LIMIT_S)
    replace_the_client(house)
    stack.wait_up(house.cluster, 2 * LIMIT_S)
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
    house.portal.wait_over(procedure, 2 * LIMIT_S)
    assert procedure.state == "done", procedure.detail
    steps = {step.name: step.outcome for step in procedure.steps.all()}
    assert steps["Upload the client"] == "done", steps


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
    finally:
        house.stack.redis.start()
    house.wait_states(2, "completed")

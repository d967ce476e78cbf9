"""How quick the control link stays while files are on their way."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import websocket

from cluster_client.protocol import messages
from controller.models import HpcCluster
from ops.stack import CHECKOUT
from workers.links import bridge, frames, ssh_carrier
from workers.operations import reach

from . import browser, clusters, figures, places
from .figures import Measured
from .rig import Rig

READERS = 4
STEP_S = 0.02
LINK_S = 6.0
"""A link that says no greeting is ended by the daemon after 10 s: then comes another."""
LIMIT_S = 20.0


def measure(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """WebSocket pings to the daemon, over an SSH connection of their own as a worker's are."""
    links, size_mib = rig.either(4, 1), rig.either(8192, 2048)
    job = places.job_of(rig, cluster)
    path = clusters.job_directory(rig, job) / "bulk"
    places.make_sparse(rig, path, size_mib)
    reader, url = browser.log_in(rig), browser.url_of(job, path.name)
    login = reach.login_of(cluster)
    with ssh_carrier.SshCarrier(login) as carrier:
        quiet = pings_ms(rig, cluster, carrier, 1)
        with reading(reader, url):
            busy = pings_ms(rig, cluster, carrier, links)
    path.unlink()
    return {
        "ping_p99_ms": Measured(
            figures.percentile(busy, 99),
            f"{len(busy)} pings of a control link during {READERS} downloads, median"
            f" {statistics.median(busy):.2f} ms; without them p99"
            f" {figures.percentile(quiet, 99):.2f} ms",
        )
    }


@contextlib.contextmanager
def reading(reader: browser.Browser, url: str) -> Iterator[None]:
    """READERS downloads of the file in a process of their own, all under way."""
    argv = [sys.executable, "-m", "ops.bench.reading"]
    argv += [str(reader.port), reader.cookie, str(READERS), url]
    with subprocess.Popen(argv, cwd=CHECKOUT) as process:
        try:
            time.sleep(2)  # each has its link, and its first pieces
            yield
            if process.poll() is not None:
                raise RuntimeError("The readers have ended: their words are above.")
        finally:
            process.kill()


def pings_ms(
    rig: Rig, cluster: HpcCluster, carrier: ssh_carrier.SshCarrier, links: int
) -> Sequence[float]:
    """The time of each ping until its pong, over so many links one after the other."""
    found: list[float] = []
    installation = bridge.Installation(str(clusters.client_path(rig)))
    key = f"bench.{cluster.pk}"
    for _ in range(links):
        channel, _ = bridge.open_client(carrier, installation, ("dial", key), LIMIT_S)
        try:
            link = frames.Frames(channel, messages.CONTROL_LIMIT_BYTES, LIMIT_S)
            link.settimeout(LIMIT_S)
            ends_at = time.monotonic() + LINK_S
            while time.monotonic() < ends_at:
                found.append(_ping_ms(link))
                time.sleep(STEP_S)
        finally:
            channel.close()
    return found


def _ping_ms(link: frames.Frames) -> float:
    begun_at = time.perf_counter()
    link.send(b"", websocket.ABNF.OPCODE_PING)
    while link.receive()[0] != websocket.ABNF.OPCODE_PONG:
        continue
    return 1000 * (time.perf_counter() - begun_at)

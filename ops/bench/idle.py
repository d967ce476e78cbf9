"""What a link costs that nothing happens on: processor time and memory of worker and daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence

from controller.models import HpcCluster
from controller.services import clusters as services_clusters

from . import clusters, processes_seen
from .figures import Measured
from .rig import Rig

LINKS = 50
UP_LIMIT_S = 240.0


def measure(rig: Rig, first: HpcCluster) -> dict[str, Measured]:
    """With one link, then with LINKS, each with an SSH connection and a daemon of its own."""
    watched_s, links = rig.either(20, 3), rig.either(LINKS, 3)
    worker = rig.pid("worker")
    _settle()
    rss_of_one_mib = processes_seen.rss_mib(worker)
    others = [clusters.add(rig, f"idle-{number}") for number in range(2, links + 1)]
    for cluster in others:
        clusters.copy_pins(first, cluster)
        services_clusters.connect(cluster)
    clusters.wait_up(rig, [first, *others], UP_LIMIT_S)
    _settle()
    daemons = [clusters.daemon_pid(cluster) for cluster in (first, *others)]
    worker_share, *shares = _shares([worker, *daemons], watched_s)
    rss_mib = processes_seen.rss_mib(worker)
    for cluster in others:
        services_clusters.disconnect(cluster)
    return {
        "idle_cpu_daemon": Measured(
            100 * sum(shares) / len(shares), f"mean of {links} linked daemons over {watched_s} s"
        ),
        "idle_cpu_worker": Measured(
            100 * worker_share,
            f"one worker with {links} links over SSH, over {watched_s} s",
        ),
        "links_per_worker_rss_mib": Measured(
            (rss_mib - rss_of_one_mib) / (links - 1),
            f"growth from 1 link ({rss_of_one_mib:.0f} MiB) to {links} ({rss_mib:.0f} MiB)",
        ),
    }


def _settle() -> None:
    """Let what follows a link's coming up pass: a sweep, a heartbeat, the threads' first waits."""
    time.sleep(5)


def _shares(pids: Sequence[int], watched_s: float) -> list[float]:
    """The part of one core that each process uses."""
    begun_at = time.monotonic()
    before = [processes_seen.cpu_s(pid) for pid in pids]
    time.sleep(watched_s)
    took_s = time.monotonic() - begun_at
    return [
        (processes_seen.cpu_s(pid) - used_s) / took_s
        for pid, used_s in zip(pids, before, strict=True)
    ]

"""How much memory a long download takes in each process that carries it."""

from __future__ import annotations

import threading
from pathlib import Path

from controller.models import HpcCluster
from ops import errors

from . import browser, clusters, places, processes_seen
from .browser import Browser
from .figures import Measured
from .places import MIB
from .rig import Rig

STEP_S = 0.1
BEGUN_MIB = 64
LIMIT_S = 240.0


class Watch:
    """The resident memory of processes: as first seen, and the most since then."""

    def __init__(self) -> None:
        self._first: dict[str, dict[int, float]] = {}
        self._most: dict[int, float] = {}

    def look(self, name: str, pid: int) -> None:
        """Note what the process has now; one that has ended is left alone."""
        try:
            rss_mib = processes_seen.rss_mib(pid)
        except OSError:
            return
        self._first.setdefault(name, {}).setdefault(pid, rss_mib)
        self._most[pid] = max(rss_mib, self._most.get(pid, 0.0))

    def growth_mib(self) -> dict[str, float]:
        """By name, of the process that grew the most."""
        return {
            name: max(self._most[pid] - rss_mib for pid, rss_mib in first.items())
            for name, first in self._first.items()
        }


def measure(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """The worst growth among the processes, once the stream is under way."""
    size_mib = rig.either(8192, 256)
    job = places.job_of(rig, cluster)
    path = clusters.job_directory(rig, job) / "sparse"
    places.make_sparse(rig, path, size_mib)
    reader, url = browser.log_in(rig), browser.url_of(job, path.name)
    watch = Watch()
    stream = Stream(reader, url)
    stream.start()
    while stream.is_alive():
        stream.join(STEP_S)
        if stream.done_mib >= BEGUN_MIB:
            _look_at_all(rig, cluster, watch)
    stream.check(size_mib)
    path.unlink()
    growth = watch.growth_mib()
    told = ", ".join(f"{name} {mib:.1f}" for name, mib in growth.items())
    return {
        "rss_growth_mib": Measured(
            max(growth.values()),
            f"during {size_mib} MiB of a sparse file after its first {BEGUN_MIB}: {told}",
        )
    }


def _look_at_all(rig: Rig, cluster: HpcCluster, watch: Watch) -> None:
    for name in ("web", "files"):
        watch.look(name, rig.pid(name))
    for pid in file_processes(rig, cluster):
        watch.look("cluster's file process", pid)


def file_processes(rig: Rig, cluster: HpcCluster) -> list[int]:
    """The processes `client.py files` of the cluster."""
    key = f"bench.{cluster.pk}"
    uid = Path(rig.account.home).stat().st_uid
    return list(processes_seen.find("python", "client", " files ", key, uid=uid))


class Stream(threading.Thread):
    """One download on a thread of its own."""

    def __init__(self, reader: Browser, url: str) -> None:
        super().__init__(name="stream", daemon=True)
        self._reader = reader
        self._url = url
        self._done_bytes = 0
        self._failure: BaseException | None = None

    @property
    def done_mib(self) -> float:
        return self._done_bytes / MIB

    def check(self, size_mib: int) -> None:
        """Raise what went wrong; OpsError if not all of it came."""
        if self._failure is not None:
            raise self._failure
        if self._done_bytes != size_mib * MIB:
            raise errors.OpsError(f"{self._done_bytes} bytes came of {size_mib} MiB.")

    def run(self) -> None:
        try:
            self._reader.get(self._url, self._heard)
        except BaseException as problem:  # noqa: BLE001  # raised by `check`
            self._failure = problem

    def _heard(self, count: int) -> None:
        self._done_bytes += count

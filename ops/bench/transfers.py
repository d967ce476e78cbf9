"""Files through the whole product, beside scp by the same sshd and a bare sendfile over TCP."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from controller.models import HpcCluster
from controller.services import files
from ops import errors

from . import browser, clusters, figures, places, tcp
from .figures import Measured
from .places import MIB
from .rig import Rig

ENTRIES = 10_000


def downloads(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """A browser's download over HTTP, in rounds with scp and with TCP."""
    size_mib, rounds = rig.either(1024, 16), rig.either(5, 1)
    job = places.job_of(rig, cluster)
    path = clusters.job_directory(rig, job) / "download"
    places.make_full(rig, path, size_mib)
    reader, url = browser.log_in(rig), browser.url_of(job, path.name)
    by_scp: list[float] = []
    by_tcp: list[float] = []
    ours: list[float] = []
    with tcp.serving(path) as read_by_tcp:
        reader.get(url)  # the files worker logs in
        for _ in range(rounds):
            by_scp.append(size_mib / places.scp_s(rig, places.remote(rig, path), os.devnull))
            ours.append(_rate(lambda: reader.get(url), size_mib))
            by_tcp.append(_rate(read_by_tcp, size_mib))
    path.unlink()
    what = f"{size_mib} MiB over HTTP, page cache warm: {_median(ours)}"
    return {
        "download_vs_scp": Measured(
            figures.paired_ratio(ours, by_scp), f"{what}, scp {_median(by_scp)}, {rounds} rounds"
        ),
        "download_vs_tcp": Measured(
            figures.paired_ratio(ours, by_tcp),
            f"of the same, sendfile over TCP {_median(by_tcp)}",
        ),
    }


def uploads(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """services.files.upload, as a view of a portal calls it, in rounds with scp."""
    size_mib, rounds = rig.either(512, 16), rig.either(5, 1)
    job = places.job_of(rig, cluster)
    source = rig.directory / "upload"
    places.make_full(rig, source, size_mib)
    target = clusters.job_directory(rig, job) / "uploaded"
    by_scp, ours = [], []
    files.upload(job, target.name, MIB, [bytes(MIB)])  # the files worker logs in
    for _ in range(rounds):
        _clear(target)
        by_scp.append(size_mib / places.scp_s(rig, source, places.remote(rig, target)))
        _clear(target)
        begun_at = time.monotonic()
        files.upload(job, target.name, source.stat().st_size, _pieces(source))
        ours.append(size_mib / (time.monotonic() - begun_at))
    _clear(target)
    source.unlink()
    return {
        "upload_vs_scp": Measured(
            figures.paired_ratio(ours, by_scp),
            f"{size_mib} MiB by services.files.upload: {_median(ours)},"
            f" scp {_median(by_scp)}, {rounds} rounds",
        )
    }


def listing(rig: Rig, cluster: HpcCluster) -> dict[str, Measured]:
    """One page of a large directory, as the web process asks for it."""
    entries, rounds = rig.either(ENTRIES, 500), rig.either(15, 2)
    job = places.job_of(rig, cluster)
    directory = clusters.job_directory(rig, job) / "many"
    places.make_many(rig, directory, entries)
    took_ms = []
    for _ in range(rounds + 1):
        begun_at = time.monotonic()
        found = files.list_directory(job, directory.name, limit=entries)
        took_ms.append(1000 * (time.monotonic() - begun_at))
        if len(found["entries"]) != entries:
            raise errors.OpsError(f"{len(found['entries'])} of {entries} entries were listed.")
    return {
        "list_10k_ms": Measured(
            statistics.median(took_ms[1:]),
            f"{entries} entries in one page by services.files.list_directory,"
            f" median of {rounds}, worst {max(took_ms[1:]):.0f} ms",
        )
    }


def _rate(read: Callable[[], int], size_mib: int) -> float:
    """MiB a second."""
    begun_at = time.monotonic()
    read_bytes = read()
    took_s = time.monotonic() - begun_at
    if read_bytes != size_mib * MIB:
        raise errors.OpsError(f"{read_bytes} bytes came, {size_mib * MIB} were to come.")
    return size_mib / took_s


def _median(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.0f} MiB/s"


def _clear(path: Path) -> None:
    """Remove the file; nothing of it is left to be written while the next one is measured."""
    path.unlink(missing_ok=True)
    os.sync()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(MIB):
            yield piece

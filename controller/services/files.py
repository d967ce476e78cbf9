"""Files of a job's directory, through the files workers; needs no daemon and no link."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .. import conf, errors, publish
from ..lifecycle import JobStatus
from ..models import HpcCluster, HpcJob
from ..models.transfer import Direction
from ..relay.frames import Bytes
from . import streams, transfers
from .streams import Download

__all__ = ["Download", "Stored", "download", "list_directory", "read", "stat", "upload"]

LIMIT_S = 30.0
STDOUT = "stdout.log"
STDERR = "stderr.log"
PAGE_LIMIT = 10_000
"""Most entries of a directory that come at once."""

Path = str | bytes
"""Relative to the job's directory; what is no UTF-8 in it as surrogates (PEP 383), or bytes."""


@dataclass(frozen=True)
class Stored:
    """A file that is whole on the cluster."""

    size_bytes: int
    etag: str
    sha256: str
    transfer_id: UUID


def list_directory(
    job: HpcJob, path: Path = "", *, after_b64: str = "", limit: int = 1000
) -> dict[str, Any]:
    """One directory of the job: {"entries": [...], "is_complete": bool}."""
    return _call("list", job, path, after_b64, max(1, min(limit, PAGE_LIMIT)))


def stat(job: HpcJob, path: Path) -> dict[str, Any]:
    """What is at `path`, relative to the job's directory."""
    return _call("stat", job, path)


def read(job: HpcJob, path: Path, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer only at the end of the file."""
    return _content(_call("read", job, path, offset, length))


def download(place: HpcJob | HpcCluster, path: Path, *, owner: Any = None) -> Download:
    """A file of a job, or of a cluster, where the path begins with the tag of one of its jobs.

    Blocks until the size is known. Raises NotFound, Refused, Busy, QueueUnreachable, Timeout, ...
    """
    job, exact = _spot(place, path)
    cluster = _cluster_with_files(job)
    transfer = transfers.begin(job, cluster, Direction.DOWNLOAD, exact, owner)
    return streams.download(transfer)


def upload(
    job: HpcJob, path: Path, size_bytes: int, pieces: Iterable[Bytes], *, owner: Any = None
) -> Stored:
    """Put a file of `size_bytes` into the job's directory, in place of what file is there.

    It appears whole or not at all; what `pieces` raises cancels it, and is raised.
    """
    if not 0 <= size_bytes <= transfers.SIZE_LIMIT_BYTES:
        raise errors.Invalid(f"A file of {size_bytes} bytes was announced; no file has that size.")
    cluster = _cluster_with_files(job)
    transfer = transfers.begin(job, cluster, Direction.UPLOAD, path, owner, size_bytes)
    sha256, etag = streams.upload(transfer, pieces)
    return Stored(size_bytes, etag, sha256, transfer.pk)


def read_whole(job: HpcJob, path: Path) -> Iterator[bytes]:
    """The file in slices, as it stands when its end is reached."""
    slice_bytes = conf.get().file_read_limit_bytes
    offset = 0
    while piece := read(job, path, offset, slice_bytes):
        yield piece
        offset += len(piece)


def _spot(place: HpcJob | HpcCluster, path: Path) -> tuple[HpcJob, bytes]:
    exact = transfers.exact_bytes(path)
    if not isinstance(place, HpcCluster):
        return place, exact
    first, _, rest = exact.lstrip(b"/").partition(b"/")
    tag = first.decode("utf-8", "replace").replace("\0", "\ufffd")
    job = HpcJob._base_manager.filter(cluster=place.pk, tag=tag).first()
    if job is None or not rest:
        raise errors.NotFound(
            f"Cluster {place.name} has no file {tag}/...: the path begins with the tag of one of"
            " its jobs, and goes on within the job's directory."
        )
    return job, rest


def _cluster_with_files(job: HpcJob) -> HpcCluster:
    """The cluster that holds the job's directory. Raises NotFound."""
    if job.cluster is None or not job.attempt:
        raise errors.NotFound(f"Job {job.pk} was never sent to a cluster: it has no files.")
    if job.status is JobStatus.DELETED:
        raise errors.NotFound(f"The data of job {job.pk} was deleted on request.")
    return job.cluster


def _call(verb: str, job: HpcJob, path: Path, *arguments: Any) -> dict[str, Any]:
    _cluster_with_files(job)
    text = transfers.exact_bytes(path).decode("utf-8", "surrogateescape")
    return publish.call_files(verb, job.pk, text, *arguments, timeout_s=LIMIT_S)


def _content(answer: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(answer["data_b64"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise errors.Refused("The files worker's answer holds no data: see its log.") from error

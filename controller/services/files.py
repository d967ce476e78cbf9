"""Files of a job's directory, through the files workers; needs no daemon and no link."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from .. import conf, errors, publish
from ..lifecycle import JobStatus
from ..models import HpcJob

LIMIT_S = 30.0
STDOUT = "stdout.log"
STDERR = "stderr.log"


def list_directory(
    job: HpcJob, path: str = "", *, after_b64: str = "", limit: int = 1000
) -> dict[str, Any]:
    """One directory of the job: {"entries": [...], "is_complete": bool}."""
    return _call("list", job, path, after_b64, limit)


def stat(job: HpcJob, path: str) -> dict[str, Any]:
    """What is at `path`, relative to the job's directory."""
    return _call("stat", job, path)


def read(job: HpcJob, path: str, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer only at the end of the file."""
    return _content(_call("read", job, path, offset, length))


def read_whole(job: HpcJob, path: str) -> Iterator[bytes]:
    """The file in slices, as it stands when its end is reached."""
    slice_bytes = conf.get().file_read_limit_bytes
    offset = 0
    while piece := read(job, path, offset, slice_bytes):
        yield piece
        offset += len(piece)


def _call(verb: str, job: HpcJob, *arguments: Any) -> dict[str, Any]:
    if job.cluster_id is None or not job.attempt:
        raise errors.NotFound(f"Job {job.pk} was never sent to a cluster: it has no files.")
    if job.status is JobStatus.DELETED:
        raise errors.NotFound(f"The data of job {job.pk} was deleted on request.")
    return publish.call_files(verb, job.pk, *arguments, timeout_s=LIMIT_S)


def _content(answer: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(answer["data_b64"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise errors.Refused("The files worker's answer holds no data: see its log.") from error

"""Files of jobs, each question over a short-lived data connection of its own.

No link is needed: a files worker holds none, and a daemon that restarts breaks nothing here.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster_client.protocol import messages
from controller import conf
from controller import errors as controller_errors
from controller.models import HpcJob
from controller.services import files as file_services
from controller.services import jobs

from ..links import bridge, clock, data, errors
from . import bootstrap

logger = logging.getLogger(__name__)

CODES: dict[str, type[controller_errors.HpcError]] = {
    "path_refused": controller_errors.Refused,
    "invalid_request": controller_errors.Invalid,
    "no_such_path": controller_errors.NotFound,
    "not_found": controller_errors.NotFound,
}
"""Codes of the client, and what they are here."""


class Seats:
    """How many data connections this process has to each cluster. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[int] = Counter()

    @contextmanager
    def taken(self, cluster_id: int, most: int) -> Iterator[None]:
        """One of `most` seats inside. Raises Busy at once where none is free."""
        with self._lock:
            if self._taken[cluster_id] >= most:
                raise controller_errors.Busy(
                    f"{most} questions about files are under way on this cluster, as many as a "
                    "files worker may have open there (HPC_FILES_PARALLEL): ask again in a moment."
                )
            self._taken[cluster_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[cluster_id] -= 1


seats = Seats()


def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """{"ok": what `ask` returns} or {"error": {...}}: JSON, never an exception."""
    try:
        return {"ok": ask()}
    except controller_errors.HpcError as problem:
        return _error(problem.code, str(problem), problem.transient)
    except errors.NoAnswer as problem:
        return _error(controller_errors.Timeout.code, str(problem), True)
    except errors.LinkError as problem:
        return _error(controller_errors.Unavailable.code, str(problem), True)
    except Exception:
        logger.exception("files.failed")
        return _error("error", "The files worker failed: see its log.", False)


def list_directory(job_id: int, path: str, after_b64: str, limit: int) -> dict[str, Any]:
    """One page of a directory."""
    with _connected(job_id) as (job, link):
        listed = _asked(link, messages.List(job.tag, path, after_b64, limit))
        return {
            "entries": [dataclasses.asdict(entry) for entry in listed.entries],
            "is_complete": listed.is_complete,
        }


def stat(job_id: int, path: str) -> dict[str, Any]:
    """One entry."""
    with _connected(job_id) as (job, link):
        return dataclasses.asdict(_asked(link, messages.Stat(job.tag, path)).entry)


def read(job_id: int, path: str, offset: int, length: int) -> dict[str, Any]:
    """At most HPC_FILE_READ_LIMIT_BYTES from `offset`, as base64."""
    most = conf.get().file_read_limit_bytes
    length = most if length < 0 else min(length, most)
    with _connected(job_id) as (job, link):
        opened = _asked(
            link,
            messages.Open(
                transfer=f"read-{job_id}",
                attempt=1,
                tag=job.tag,
                path=path,
                offset=offset,
                length=length,
            ),
        )
        content = link.read_stream(length)
        return {
            "data_b64": base64.b64encode(content).decode(),
            "offset": offset,
            "size_bytes": opened.size_bytes,
            "etag": opened.etag,
        }


@contextmanager
def _connected(job_id: int) -> Iterator[tuple[HpcJob, data.DataLink]]:
    ends_at = clock.now() + file_services.LIMIT_S
    job = jobs.load(job_id)
    if job.cluster_id is None:
        raise controller_errors.NotFound(f"Job {job_id} has no cluster yet.")
    with (
        seats.taken(job.cluster_id, conf.get().files_parallel),
        _linked(job.cluster_id, ends_at) as link,
    ):
        yield job, link


@contextmanager
def _linked(cluster_id: int, ends_at: float) -> Iterator[data.DataLink]:
    plan = bootstrap.plan(cluster_id)
    channel, marker = bridge.open_client(
        bootstrap.carrier_of(plan),
        plan.installation,
        ("files", plan.key),
        conf.get().connect_timeout_s,
    )
    try:
        if marker.status != "connected":
            raise errors.CannotConnect(marker.status, marker.detail or "The client refused.")
        hello = messages.Hello(
            versions=messages.VERSIONS,
            instance_id=conf.get().instance_id,
            cluster_id=cluster_id,
            purpose=messages.FILES,
        )
        yield data.DataLink(channel, hello, ends_at)
    finally:
        channel.close()


def _asked(link: data.DataLink, message: Any) -> Any:
    reply = link.ask(message)
    if isinstance(reply, messages.Error):
        fallback = controller_errors.Unavailable if reply.transient else controller_errors.Refused
        raise CODES.get(reply.code, fallback)(reply.message)
    return reply


def _error(code: str, message: str, transient: bool) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "transient": transient}}

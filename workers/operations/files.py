"""Files of jobs, asked of a process on the cluster that serves files alone.

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
from controller.services import files as file_services
from controller.services import jobs

from ..links import clock, data
from . import data_links, told

logger = logging.getLogger(__name__)

ANSWER_LIMIT_S = file_services.LIMIT_S - 3
"""A moment before who asked gives up, so that the reason is heard."""


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

    def taken_of(self, cluster_id: int) -> int:
        """How many are taken now."""
        with self._lock:
            return self._taken[cluster_id]


seats = Seats()


def close() -> None:
    """Log out of all clusters: the worker stops."""
    data_links.close()


def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """{"ok": what `ask` returns} or {"error": {...}}: JSON, never an exception."""
    try:
        return {"ok": ask()}
    except Exception as failure:  # noqa: BLE001  # told, and logged there if nobody foresaw it
        problem = told.as_error(failure)
        logger.info("files.not_answered", extra={"code": problem.code, "problem": str(problem)})
        return {"error": told.document(problem)}


def list_directory(job_id: int, path: str, after_b64: str, limit: int) -> dict[str, Any]:
    """One page of a directory."""

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        listed = told.answered(link.ask(messages.List(tag, path, after_b64, limit)))
        return {
            # They come by the thousand, and asdict takes some 6 us for each.
            "entries": [vars(entry) for entry in listed.entries],
            "is_complete": listed.is_complete,
        }

    return _ask(job_id, question)


def stat(job_id: int, path: str) -> dict[str, Any]:
    """One entry."""

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        return dataclasses.asdict(told.answered(link.ask(messages.Stat(tag, path))).entry)

    return _ask(job_id, question)


def read(job_id: int, path: str, offset: int, length: int) -> dict[str, Any]:
    """At most HPC_FILE_READ_LIMIT_BYTES from `offset`, as base64."""
    most = conf.get().file_read_limit_bytes
    length = most if length < 0 else min(length, most)

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        request = messages.Open(f"read-{job_id}", 1, tag, path, offset, length)
        opened = told.answered(link.ask(request))
        content = link.read_stream(length)
        return {
            "data_b64": base64.b64encode(content).decode(),
            "offset": offset,
            "size_bytes": opened.size_bytes,
            "etag": opened.etag,
        }

    return _ask(job_id, question)


Question = Callable[[str, data.DataLink], dict[str, Any]]
"""Asks for something of the job with that tag. It only reads, so it may be asked twice."""


def _ask(job_id: int, question: Question) -> dict[str, Any]:
    ends_at = clock.now() + ANSWER_LIMIT_S
    job = jobs.load(job_id)
    cluster = job.cluster
    if cluster is None:
        raise controller_errors.NotFound(f"Job {job_id} has no cluster yet.")
    with seats.taken(cluster.pk, conf.get().files_parallel):
        return data_links.use(cluster, lambda link: question(job.tag, link), ends_at)

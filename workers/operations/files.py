"""Files of jobs, asked of a process on the cluster that serves files alone.

No link is needed: a files worker holds none, and a daemon that restarts breaks nothing here. Over
SSH all questions to a cluster share a connection (data_carriers.py).
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
from controller.models import Carrier
from controller.services import files as file_services
from controller.services import jobs

from ..links import bridge, carriers, clock, data, errors, ssh_errors
from . import bootstrap, data_carriers, data_places, reach
from .plans import Plan

logger = logging.getLogger(__name__)

CODES: dict[str, type[controller_errors.HpcError]] = {
    "path_refused": controller_errors.Refused,
    "invalid_request": controller_errors.Invalid,
    "no_such_path": controller_errors.NotFound,
    "not_found": controller_errors.NotFound,
}
"""Codes of the client, and what they are here."""

LOGIN_KINDS: dict[type[errors.LinkError], type[controller_errors.HpcError]] = {
    ssh_errors.HostKeyChanged: controller_errors.HostKeyRefused,
    ssh_errors.HostKeyUnconfirmed: controller_errors.HostKeyRefused,
    ssh_errors.BudgetSpent: controller_errors.LoginsHeldBack,
    ssh_errors.Unreachable: controller_errors.HostUnreachable,
    ssh_errors.NotSsh: controller_errors.Refused,
    ssh_errors.NoCommonAlgorithm: controller_errors.Refused,
    ssh_errors.LoginError: controller_errors.LoginRefused,
}
"""Failed logins, and what they are here; the first that fits counts."""

ANSWER_LIMIT_S = file_services.LIMIT_S - 3
"""A moment before who asked gives up, so that the reason is heard."""

LINK_AGE_S = 60.0
"""The client on its other end has read its settings as they were at its start."""


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
connections = data_carriers.DataCarriers(
    data_places.read, data_places.make, lambda: conf.get().data_idle_s
)


def close() -> None:
    """Log out of all clusters: the worker stops."""
    connections.close()


def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """{"ok": what `ask` returns} or {"error": {...}}: JSON, never an exception."""
    try:
        return {"ok": ask()}
    except controller_errors.HpcError as problem:
        return _error(type(problem), str(problem))
    except errors.LinkError as problem:
        return _error(_kind(problem), str(problem), getattr(problem, "pause_s", 0.0))
    except Exception:
        logger.exception("files.failed")
        return _error(controller_errors.HpcError, "The files worker failed: see its log.")


def _kind(problem: errors.LinkError) -> type[controller_errors.HpcError]:
    """What a failure on the way to the cluster is to who asked."""
    for kind, told in LOGIN_KINDS.items():
        if isinstance(problem, kind):
            return told
    if isinstance(problem, errors.NoAnswer):
        return controller_errors.Timeout
    if isinstance(problem, errors.CannotConnect) and problem.reason == "cannot_decrypt":
        return controller_errors.CannotDecrypt
    return controller_errors.Unavailable if problem.transient else controller_errors.Refused


def list_directory(job_id: int, path: str, after_b64: str, limit: int) -> dict[str, Any]:
    """One page of a directory."""

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        listed = _asked(link, messages.List(tag, path, after_b64, limit))
        return {
            "entries": [dataclasses.asdict(entry) for entry in listed.entries],
            "is_complete": listed.is_complete,
        }

    return _ask(job_id, question)


def stat(job_id: int, path: str) -> dict[str, Any]:
    """One entry."""

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        return dataclasses.asdict(_asked(link, messages.Stat(tag, path)).entry)

    return _ask(job_id, question)


def read(job_id: int, path: str, offset: int, length: int) -> dict[str, Any]:
    """At most HPC_FILE_READ_LIMIT_BYTES from `offset`, as base64."""
    most = conf.get().file_read_limit_bytes
    length = most if length < 0 else min(length, most)

    def question(tag: str, link: data.DataLink) -> dict[str, Any]:
        opened = _asked(
            link,
            messages.Open(
                transfer=f"read-{job_id}",
                attempt=1,
                tag=tag,
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

    return _ask(job_id, question)


Question = Callable[[str, data.DataLink], dict[str, Any]]
"""Asks for something of the job with that tag. It only reads, so it may be asked twice."""


def _ask(job_id: int, question: Question) -> dict[str, Any]:
    ends_at = clock.now() + ANSWER_LIMIT_S
    job = jobs.load(job_id)
    cluster = job.cluster
    if cluster is None:
        raise controller_errors.NotFound(f"Job {job_id} has no cluster yet.")

    def over(lent: data_carriers.Lent[Plan]) -> dict[str, Any]:
        with _linked(lent, ends_at) as link:
            return question(job.tag, link)

    with seats.taken(cluster.pk, conf.get().files_parallel):
        if reach.carrier_kind(cluster) == Carrier.SSH:
            return connections.ask(cluster.pk, over, ends_at)
        plan = bootstrap.plan(cluster.pk)
        return over(data_carriers.Lent(reach.carrier(plan, reach.FILES, reach.directly), plan))


@contextmanager
def _linked(lent: data_carriers.Lent[Plan], ends_at: float) -> Iterator[data.DataLink]:
    link = _taken(lent, ends_at) or _opened(lent.carrier, lent.plan, ends_at)
    try:
        yield link
    except controller_errors.HpcError:  # the client's answer: nothing is wrong with the link
        lent.keep(link)
        raise
    except BaseException:
        link.close()
        raise
    lent.keep(link)


def _taken(lent: data_carriers.Lent[Plan], ends_at: float) -> data.DataLink | None:
    """The link that an earlier question has left, if there is a young one."""
    link = lent.spare
    if not isinstance(link, data.DataLink):
        return None
    if clock.now() - link.opened_at > LINK_AGE_S:
        link.close()
        return None
    link.extend(ends_at)
    return link


def _opened(carrier: carriers.Carrier, plan: Plan, ends_at: float) -> data.DataLink:
    channel, marker = bridge.open_client(
        carrier,
        plan.installation,
        ("files", plan.key),
        min(conf.get().connect_timeout_s, max(0.1, ends_at - clock.now())),
    )
    try:
        if marker.status != "connected":
            raise errors.CannotConnect(marker.status, marker.detail or "The client refused.")
        hello = messages.Hello(
            versions=messages.VERSIONS,
            instance_id=conf.get().instance_id,
            cluster_id=plan.cluster_id,
            purpose=messages.FILES,
        )
        return data.DataLink(channel, hello, ends_at)
    except BaseException:
        channel.close()
        raise


def _asked(link: data.DataLink, message: Any) -> Any:
    reply = link.ask(message)
    if isinstance(reply, messages.Error):
        fallback = controller_errors.Unavailable if reply.transient else controller_errors.Refused
        raise CODES.get(reply.code, fallback)(reply.message)
    return reply


def _error(
    kind: type[controller_errors.HpcError], message: str, retry_after_s: float = 0.0
) -> dict[str, Any]:
    logger.info("files.not_answered", extra={"code": kind.code, "problem": message})
    told = {"code": kind.code, "message": message, "transient": kind.transient}
    return {"error": {**told, "retry_after_s": retry_after_s}}

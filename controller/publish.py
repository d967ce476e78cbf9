"""The only module that knows the names of Celery's tasks: it sends nudges and asks for files.

Rules:
- A nudge carries ids, fires after the commit, and is sent by a thread of its own, so that a
  broker that hangs holds nobody up for more than SEND_LIMIT_S. What sending needs is imported
  before that limit begins: in a fresh process on a loaded machine it takes longer.
- A nudge that fails is forgotten, and for PAUSE_S no other is tried: the sweep does their work.
- Names and queues are explicit, so that a portal's web process needs no routes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import celery
import celery.exceptions
import kombu.exceptions
import redis.exceptions
from django.db import transaction

from . import errors, senders

logger = logging.getLogger(__name__)

SEND_LIMIT_S = 0.5
PAUSE_S = 10.0

SUBMIT_JOB = "hpc.jobs.submit"
CANCEL_JOB = "hpc.jobs.cancel"
DELETE_JOB = "hpc.jobs.delete"
DRAIN_CLUSTER = "hpc.clusters.drain"
CONNECT = "hpc.clusters.connect"
DISCONNECT = "hpc.clusters.disconnect"
BOOTSTRAP = "hpc.clusters.bootstrap"
FETCH_HOST_KEYS = "hpc.clusters.fetch_host_keys"
TEST_CONNECTION = "hpc.clusters.test_connection"
FILES_LIST = "hpc.files.list"
FILES_STAT = "hpc.files.stat"
FILES_READ = "hpc.files.read"
FILES_DOWNLOAD = "hpc.files.download"
FILES_UPLOAD = "hpc.files.upload"

FILES_TASKS = (FILES_LIST, FILES_STAT, FILES_READ, FILES_DOWNLOAD, FILES_UPLOAD)

TASKS = (
    SUBMIT_JOB,
    CANCEL_JOB,
    DELETE_JOB,
    DRAIN_CLUSTER,
    CONNECT,
    DISCONNECT,
    BOOTSTRAP,
    FETCH_HOST_KEYS,
    TEST_CONNECTION,
    *FILES_TASKS,
)
"""Every name that is published; workers register each."""

QUEUE = "hpc"
FILES_QUEUE = "files"

# Celery's result consumer raises a bare RuntimeError when it can't connect again.
# Source: celery/backends/asynchronous.py of 5.7.0, reconnect_on_error
BROKER_ERRORS = (
    kombu.exceptions.KombuError,
    redis.exceptions.RedisError,
    OSError,
    RuntimeError,
)

ANSWER_ERRORS: dict[str, type[errors.HpcError]] = {
    kind.code: kind
    for kind in (
        errors.NotFound,
        errors.Invalid,
        errors.IllegalMove,
        errors.Unavailable,
        errors.ClusterOffline,
        errors.LinkLost,
        errors.Busy,
        errors.TransferBroken,
        errors.Timeout,
        errors.HostUnreachable,
        errors.LoginsHeldBack,
        errors.Refused,
        errors.NoSpace,
        errors.LoginRefused,
        errors.HostKeyRefused,
        errors.CannotDecrypt,
        errors.Misconfigured,
    )
}

_import_lock = threading.Lock()
_is_imported = False
_gathering = threading.Lock()
_gathered: dict[int, list[int]] = {}
"""By cluster, while one of its nudges is being sent: the jobs whose nudges wait meanwhile."""
_pause_lock = threading.Lock()
_paused_until = 0.0


def cluster_queue(cluster_id: int) -> str:
    """The queue that only the holder of the cluster's link consumes."""
    return f"cluster.{cluster_id}"


def submit_job(cluster_id: int, job_id: int) -> None:
    """Nudge: the job waits to be submitted.

    Those of one cluster that come while one is being sent go together, as one drain_cluster.
    """
    transaction.on_commit(lambda: _gather(cluster_id, job_id), robust=True)


def cancel_job(cluster_id: int, job_id: int) -> None:
    """Nudge: the job waits to be cancelled."""
    _nudge(CANCEL_JOB, job_id, cluster_queue(cluster_id))


def delete_job(cluster_id: int, job_id: int) -> None:
    """Nudge: the job's data waits to be deleted."""
    _nudge(DELETE_JOB, job_id, cluster_queue(cluster_id))


def drain_cluster(cluster_id: int) -> None:
    """Nudge: many jobs wait to be submitted."""
    _nudge(DRAIN_CLUSTER, cluster_id, cluster_queue(cluster_id))


def connect(cluster_id: int) -> None:
    """Nudge: a link is wanted."""
    _nudge(CONNECT, cluster_id, QUEUE)


def disconnect(cluster_id: int) -> None:
    """Nudge: a link is wanted no more."""
    _nudge(DISCONNECT, cluster_id, QUEUE)


def bootstrap(cluster_id: int) -> None:
    """Nudge: the daemon is to be started."""
    _nudge(BOOTSTRAP, cluster_id, QUEUE)


def fetch_host_keys(cluster_id: int) -> None:
    """Nudge: the host keys are to be looked at."""
    _nudge(FETCH_HOST_KEYS, cluster_id, QUEUE)


def test_connection(cluster_id: int) -> None:
    """Nudge: the connection is to be tested."""
    _nudge(TEST_CONNECTION, cluster_id, QUEUE)


def call_files(verb: str, *arguments: Any, timeout_s: float) -> dict[str, Any]:
    """Ask a files worker (`list`, `stat` or `read`) and wait for its answer.

    Raises QueueUnreachable, Timeout, and what the worker answered as an error.
    """
    try:
        result = celery.current_app.send_task(
            f"hpc.files.{verb}",
            args=arguments,
            queue=FILES_QUEUE,
            expires=timeout_s,
            ignore_result=False,
        )
        answer = result.get(timeout=timeout_s)
        result.forget()
    except celery.exceptions.TimeoutError as error:
        raise errors.Timeout(
            f"No files worker answered within {timeout_s:g} s: see that one runs"
            f" (celery -A workers worker -Q {FILES_QUEUE})."
        ) from error
    except BROKER_ERRORS as error:
        raise errors.QueueUnreachable(
            f"Redis can't be reached ({_innermost(error)}): see that it runs, and HPC_REDIS_URL."
        ) from error
    return _unpacked(answer)


def start_transfer(name: str, transfer_id: str, token: str, expires_s: float) -> None:
    """Have a files worker begin a transfer, and meet us at the relay of `token`.

    Raises QueueUnreachable, after SEND_LIMIT_S at most; for PAUSE_S after that at once.
    """
    send = celery.current_app.send_task
    options: dict[str, Any] = {"queue": FILES_QUEUE, "expires": expires_s, "ignore_result": True}
    failure = "it was tried a moment ago"
    if time.monotonic() >= _paused_until:
        _import_transport()
        failure = senders.bounded(
            lambda: send(name, args=[transfer_id, token], **options), SEND_LIMIT_S
        )
        if not failure:
            return
        _pause()
    raise errors.QueueUnreachable(
        f"Redis can't be reached ({failure}): see that it runs, and HPC_REDIS_URL."
    )


def error_from(told: Any) -> errors.HpcError:
    """The error that a worker has told as {"code", "message", "transient", "retry_after_s"}."""
    told = told if isinstance(told, dict) else {}
    fallback = errors.Unavailable if told.get("transient") else errors.Refused
    kind = ANSWER_ERRORS.get(str(told.get("code")), fallback)
    problem = kind(str(told.get("message") or "The files worker refused without a reason."))
    seconds = told.get("retry_after_s")
    problem.retry_after_s = float(seconds) if isinstance(seconds, int | float) else 0.0
    return problem


def _unpacked(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict) and isinstance(answer.get("ok"), dict):
        return dict(answer["ok"])
    told = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(told, dict):
        raise errors.Refused("The files worker gave an answer that makes no sense: see its log.")
    raise error_from(told)


def _nudge(name: str, identifier: int, queue: str) -> None:
    transaction.on_commit(lambda: _send(name, identifier, queue), robust=True)


def _gather(cluster_id: int, job_id: int) -> None:
    """Send the nudge, unless somebody of this process is at it: he sends for us as well."""
    send = celery.current_app.send_task  # the caller's app, as in _send
    with _gathering:
        if cluster_id in _gathered:
            _gathered[cluster_id].append(job_id)
            return
        _gathered[cluster_id] = []
    try:
        _send(SUBMIT_JOB, job_id, cluster_queue(cluster_id))
    finally:
        if job_ids := _take_gathered(cluster_id):
            _send_soon(send, cluster_id, job_ids)


def _send_soon(send: Callable[..., object], cluster_id: int, job_ids: list[int]) -> None:
    try:
        senders.soon(lambda: _send_gathered(send, cluster_id, job_ids))
    except RuntimeError as error:  # no further thread can be started
        with _gathering:
            _gathered.pop(cluster_id, None)
        _failed(DRAIN_CLUSTER, cluster_id, senders.first_line(error))


def _take_gathered(cluster_id: int) -> list[int]:
    """The jobs that wait for a nudge; where there are none, the next one sends by itself."""
    with _gathering:
        job_ids = _gathered.pop(cluster_id, [])
        if job_ids:
            _gathered[cluster_id] = []
        return job_ids


def _send_gathered(send: Callable[..., object], cluster_id: int, job_ids: list[int]) -> None:
    """On a thread that nobody waits for: one nudge for all, and again for those that come."""
    queue = cluster_queue(cluster_id)
    while job_ids:
        is_one = len(job_ids) == 1
        name, identifier = (SUBMIT_JOB, job_ids[0]) if is_one else (DRAIN_CLUSTER, cluster_id)
        if time.monotonic() >= _paused_until:
            try:
                send(name, args=[identifier], queue=queue, ignore_result=True)
            except Exception as error:  # noqa: BLE001  # as any nudge that fails
                _failed(name, identifier, senders.first_line(error))
        job_ids = _take_gathered(cluster_id)


def _send(name: str, identifier: int, queue: str) -> None:
    if time.monotonic() < _paused_until:
        return
    send = celery.current_app.send_task  # the caller's app: current_app is a matter of the thread
    _import_transport()
    failure = senders.bounded(
        lambda: send(name, args=[identifier], queue=queue, ignore_result=True), SEND_LIMIT_S
    )
    if failure:
        _failed(name, identifier, failure)


def _failed(name: str, identifier: int, reason: str) -> None:
    _pause()
    logger.warning(
        "nudge not sent, the sweep will do it",
        extra={"task": name, "id": identifier, "reason": reason},
    )


def _begin_anew() -> None:
    """In the child of a fork, which has none of its parent's threads."""
    global _gathering  # noqa: PLW0603  # its holder is not there to let go of it
    _gathering = threading.Lock()
    _gathered.clear()


os.register_at_fork(after_in_child=_begin_anew)


def _import_transport() -> None:
    """Have Celery import, once a process, what it else imports at the first sending."""
    global _is_imported  # noqa: PLW0603  # imports are a matter of the process
    with _import_lock:
        if _is_imported:
            return
        _is_imported = True
        app = celery.current_app
        try:
            transport = app.connection_for_write().get_transport_cls()
            parts = (transport, app.amqp, app.backend, app.events.Dispatcher)
            logger.debug("ready to send nudges", extra={"parts": len(parts)})
        except Exception as error:  # noqa: BLE001  # the sending will fail of it, and says so
            logger.debug("sending can't be made ready", extra={"reason": senders.first_line(error)})


def _pause() -> None:
    global _paused_until  # noqa: PLW0603  # one pause a process
    with _pause_lock:
        _paused_until = time.monotonic() + PAUSE_S


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return senders.first_line(error)

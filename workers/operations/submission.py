"""Submits jobs over a link, each to the scheduler exactly once, whatever dies when.

Claim (one conditional update, only the winner sends), send, record. Where the answer is not
known, the job stays SUBMITTING and is asked for again: the client answers by tag.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cluster_client.protocol import errors as protocol_errors
from cluster_client.protocol import messages
from controller import conf, queries
from controller.lifecycle import Event, JobStatus
from controller.models import HpcJob
from controller.services import jobs

from ..links import clock, connection, errors
from ..links.link import HeldLink
from . import faults, registry

logger = logging.getLogger(__name__)

SOURCE = "worker"
BATCH = 100
RETRY_MIN_S = 5.0
RETRY_MAX_S = 300.0

T = TypeVar("T")
Claim = Callable[[int, int], HpcJob | None]


@dataclass(frozen=True)
class Sent:
    """A job whose answer is awaited."""

    job: HpcJob
    answer: connection.Answer


class InFlight:
    """The jobs whose submission this process is about; nobody asks for them twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: set[int] = set()
        self._draining: set[int] = set()
        self._asked_again: set[int] = set()

    def enter(self, job_id: int) -> bool:
        with self._lock:
            if job_id in self._ids:
                return False
            self._ids.add(job_id)
            return True

    def leave(self, job_id: int) -> None:
        with self._lock:
            self._ids.discard(job_id)

    @contextmanager
    def draining(self, cluster_id: int) -> Iterator[bool]:
        """True inside if nobody else drains the cluster; else the one who does goes on."""
        with self._lock:
            is_first = cluster_id not in self._draining
            (self._draining if is_first else self._asked_again).add(cluster_id)
        try:
            yield is_first
        finally:
            if is_first:
                with self._lock:
                    self._draining.discard(cluster_id)

    def was_asked_again(self, cluster_id: int) -> bool:
        """Whether someone else wanted to drain the cluster since this was last asked."""
        with self._lock:
            was_asked = cluster_id in self._asked_again
            self._asked_again.discard(cluster_id)
            return was_asked


in_flight = InFlight()


def submit(job_id: int) -> None:
    """Submit the job if its link is held here and the job waits; else do nothing."""
    job = jobs.load(job_id)
    link = registry.link_of(job.cluster_id) if job.cluster_id is not None else None
    if link is None or job.status is not JobStatus.PENDING:
        return
    sent = _send(link, job_id, jobs.claim)
    if sent is not None:
        _finish(sent)


def drain(link: HeldLink, limit_s: float) -> int:
    """Submit the cluster's backlog, oldest first, for about `limit_s`; returns how many."""
    with in_flight.draining(link.cluster_id) as is_first:
        return _drain(link, clock.now() + limit_s) if is_first else 0


def ask_again(link: HeldLink, limit_s: float) -> None:
    """Ask what became of submissions whose answer was never recorded, for about `limit_s`."""
    stale = queries.stale_submitting(link.cluster_id, BATCH)
    _pipeline(link, stale, jobs.claim_again, clock.now() + limit_s)


def _drain(link: HeldLink, ends_at: float) -> int:
    count = 0
    while clock.now() < ends_at and not link.is_mute:
        due = queries.due_pending(link.cluster_id, BATCH)
        done = _pipeline(link, due, jobs.claim, ends_at)
        count += done
        if not done and not in_flight.was_asked_again(link.cluster_id):
            break
    return count


def _pipeline(link: HeldLink, job_ids: list[int], claim: Claim, ends_at: float) -> int:
    """Keep a few submissions under way, so that the client never waits for us.

    One job's failure leaves the others their turn, and every answer is waited for.
    """
    window = 2 * conf.get().submit_parallel + 2
    waiting: deque[Sent] = deque()
    count = 0
    for job_id in job_ids:
        if link.is_mute or clock.now() > ends_at:
            break
        sent = _quietly(job_id, partial(_send, link, job_id, claim))
        if sent is not None:
            count += 1
            waiting.append(sent)
        if len(waiting) >= window:
            _finish_quietly(waiting.popleft())
    while waiting:
        _finish_quietly(waiting.popleft())
    return count


def _finish_quietly(sent: Sent) -> None:
    _quietly(sent.job.pk, lambda: _finish(sent))


def _quietly(job_id: int, run: Callable[[], T]) -> T | None:
    try:
        return run()
    except Exception:
        logger.exception("submit.failed", extra={"job_id": job_id})
        return None


def _send(link: HeldLink, job_id: int, claim: Claim) -> Sent | None:
    """Claim the job and send it; None if it is not ours to send, or could not be sent."""
    if not in_flight.enter(job_id):
        return None
    sent = None
    try:
        faults.reach("worker.submit.1")
        job = claim(job_id, link.epoch)
        if job is None:
            return None
        faults.reach("worker.submit.2")
        sent = _ask(link, job)
    except errors.LinkError as problem:
        logger.warning("submit.not_sent", extra={"job_id": job_id, "problem": str(problem)})
    except protocol_errors.ProtocolError as problem:
        # Nothing was sent, and nothing smaller ever will be: script or environment is too large.
        jobs.apply(job_id, Event.REJECT, source=SOURCE, cause=f"It can't be sent: {problem}")
    finally:
        if sent is None:
            in_flight.leave(job_id)
    return sent


def _ask(link: HeldLink, job: HpcJob) -> Sent:
    settings = conf.get()
    limit_s = settings.submit_limit_s + settings.request_deadline_s
    answer = link.ask(_message(job), limit_s, lambda: faults.reach("worker.submit.3"))
    return Sent(job, answer)


def _message(job: HpcJob) -> messages.Submit:
    return messages.Submit(
        tag=job.tag,
        attempt=job.attempt,
        script=job.script,
        script_sha256=hashlib.sha256(job.script.encode()).hexdigest(),
        name=job.name,
        limit_s=conf.get().submit_limit_s,
        resources=messages.Resources(
            nodes=job.nodes,
            tasks=job.tasks,
            cpus_per_task=job.cpus_per_task,
            memory_mib=job.memory_mib,
            walltime_s=job.walltime_s,
            partition=job.partition or None,
            account=job.account or None,
            qos=job.qos or None,
        ),
        environment={str(name): str(value) for name, value in job.environment.items()},
    )


def _finish(sent: Sent) -> None:
    """Wait for the answer and record it."""
    try:
        answer = sent.answer.wait()
        faults.reach("worker.submit.4")
        _record(sent.job, answer)
        faults.reach("worker.submit.5")
    except errors.LinkError as problem:
        # Stays SUBMITTING: what became of it is asked for by tag.
        logger.warning("submit.unanswered", extra={"job_id": sent.job.pk, "problem": str(problem)})
    finally:
        in_flight.leave(sent.job.pk)


def _record(job: HpcJob, answer: Any) -> None:
    if isinstance(answer, messages.Submitted):
        kept = {"scheduler_job_id": answer.scheduler_job_id}
        jobs.apply(job.pk, Event.ACCEPT, source=SOURCE, data=kept, updates=kept)
    elif isinstance(answer, messages.Rejected):
        _record_rejected(job, answer)
    else:
        logger.warning(
            "submit.unclear",
            extra={"job_id": job.pk, "code": answer.code, "problem": answer.message},
        )
        jobs.block(job.pk, answer.code[:64], answer.message, jobs.in_future(_pause_s(job.attempt)))


def _record_rejected(job: HpcJob, answer: messages.Rejected) -> None:
    data = {"reason": answer.reason, "message": answer.message}
    if answer.reason == "cancelled":
        event = Event.CONFIRM_CANCEL
    else:
        event = Event.RELEASE if answer.transient else Event.REJECT
    outcome = jobs.apply(job.pk, event, source=SOURCE, cause=answer.message, data=data)
    if outcome.is_legal and outcome.status is JobStatus.PENDING:
        jobs.block(
            job.pk, answer.reason[:64], answer.message, jobs.in_future(_pause_s(job.attempt))
        )


def _pause_s(attempt: int) -> float:
    step_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(attempt - 1, 16))
    return step_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

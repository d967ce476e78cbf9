"""Submits a job exactly once, whatever dies when.

Steps, and the fault points around them (faults.reach):

    daemon.submit.1   a new submission was asked for, nothing is stored
      (a) the jobs' root is made, then the intent is stored: tag, attempt, limit, the script's hash
    daemon.submit.2   the intent is stored
      (b) the job's directory is made: script and wrapper
    daemon.submit.3   the directory is there
      (c) the submit command runs, under the intent's limit; it dies with the daemon
    daemon.submit.4   the command has been started and has not returned
    daemon.submit.5   the command has returned, its answer is not stored
      (d) the id is stored, with its event
    daemon.submit.6   the id is stored, nothing is answered

Rules:
- By tag: a job with an id is answered at once; one in flight is joined; one that was rejected may
  be tried again by a higher attempt.
- An intent without an id (we died, or the command's answer was unclear) is looked up. It is tried
  again only after the adapter's time has passed and queue, accounting and claim were each read
  with success and are empty; until then the answer is `unresolved`.
- Without a record (the store is new) a job whose attempt is above 1, or whose directory holds a
  claim, is looked up first.
- What could not be stored is not submitted.
- A tag whose job has another script is refused: a server with a restored database made it twice.
- With an intent stored, a missing jobs root means that its file system is not mounted: nothing is
  looked up, and nothing is submitted.
- A cancel that was stored before the submit command runs wins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Callable, Optional, Union

from cluster_client import errors, evidence, faults, schedulers, validation, wrapper
from cluster_client.batch_system import BatchSystem
from cluster_client.environment import LoginEnvironment
from cluster_client.job_directory import JobDirectories
from cluster_client.job_records import (
    ENDED,
    REJECTED,
    SUBMITTED,
    SUBMITTING,
    Change,
    JobRecord,
    NewEvent,
)
from cluster_client.job_store import JobStore
from cluster_client.protocol import messages

logger = logging.getLogger(__name__)

Answer = Union[messages.Submitted, messages.Rejected, messages.Error]


class _Flight:
    """One submission under way, and who waits for it."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.answer: Optional[Answer] = None


@dataclass(frozen=True)
class _Retry:
    """A look-up was empty and the attempt's time has passed: it may be tried again."""


class Submitter:
    """Thread-safe. `on_change` is called after a job got its id, or was given up."""

    def __init__(
        self,
        store: JobStore,
        batch: BatchSystem,
        environment: LoginEnvironment,
        directories: JobDirectories,
        hints_directory: str,
        *,
        parallel: int = 1,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._batch = batch
        self._environment = environment
        self._directories = directories
        self._hints_directory = hints_directory
        self._on_change = on_change
        self._slots = threading.BoundedSemaphore(parallel)
        self._lock = threading.Condition()
        self._flights: dict[str, _Flight] = {}

    def submit(self, message: messages.Submit) -> Answer:
        """Submit the job, or say what became of it. Raises Fenced."""
        try:
            validation.tag(message.tag)
        except errors.InvalidRequest as error:
            return messages.Rejected(message.tag, error.code, str(error), transient=False)
        deadline = time.monotonic() + validation.limit_s(message.limit_s) + 60
        while True:
            with self._lock:
                flight = self._flights.get(message.tag)
                is_ours = flight is None
                if flight is None:
                    flight = self._flights[message.tag] = _Flight()
            if is_ours:
                self._fly(flight, message)
            elif not flight.is_over.wait(max(0.0, deadline - time.monotonic())):
                return _unresolved(message.tag, "it is still being submitted")
            if flight.answer is not None:
                return flight.answer
            # What flew was the watcher's look-up, which answers nobody: now it is our turn.

    def is_in_flight(self, tag: str) -> bool:
        with self._lock:
            return tag in self._flights

    def drain(self, limit_s: float) -> bool:
        """Wait until nothing is in flight; False if it took longer than `limit_s`."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._flights, limit_s)

    def _fly(self, flight: _Flight, message: messages.Submit) -> None:
        try:
            flight.answer = self._submit(message)
        except errors.NotStored as error:
            flight.answer = _not_stored(message.tag, error)
        finally:
            self._land(message.tag, flight)

    def _land(self, tag: str, flight: _Flight) -> None:
        with self._lock:
            self._flights.pop(tag, None)
            self._lock.notify_all()
        flight.is_over.set()
        self._on_change()

    @contextmanager
    def _flying(self, tag: str) -> Iterator[bool]:
        """Keep submissions of `tag` away; False if one is under way."""
        flight = _Flight()
        with self._lock:
            is_free = tag not in self._flights
            if is_free:
                self._flights[tag] = flight
        try:
            yield is_free
        finally:
            if is_free:
                self._land(tag, flight)

    # Which case it is -----------------------------------------------------------------------

    def _submit(self, message: messages.Submit) -> Answer:
        record = self._store.get(message.tag)
        if record is None:
            return self._submit_unknown(message)
        if record.state == REJECTED:
            if record.cancel_requested_at or message.attempt <= record.attempt:
                return _rejection(record)
            return self._submit_new(message)
        if record.script_sha256 not in ("", message.script_sha256):
            return _reused(record)
        if record.scheduler_job_id:
            self._tell_again(record)
            return messages.Submitted(record.tag, record.scheduler_job_id)
        resolved = self._resolve(record)
        return self._submit_new(message) if isinstance(resolved, _Retry) else resolved

    def _submit_unknown(self, message: messages.Submit) -> Answer:
        try:
            if message.attempt > 1 or self._batch.claim(message.tag):
                found = self._batch.look_up(message.tag, 0.0)
                if found.scheduler_job_id:
                    record = JobRecord(message.tag, attempt=message.attempt, name=message.name)
                    return self._adopt(record, found.scheduler_job_id, found.others)
        except errors.CommandFailed as error:
            return _unresolved(message.tag, str(error))
        return self._submit_new(message)

    def _tell_again(self, record: JobRecord) -> None:
        """The server asks for a job whose end it has acknowledged: it forgot (a restored
        database), and would wait for that event for ever."""
        if record.state != ENDED or not record.acknowledged_at:
            return

        def step(newest: Optional[JobRecord]) -> Optional[Change]:
            if newest is None or not newest.acknowledged_at:
                return None
            return Change(replace(newest, acknowledged_at=0.0), (evidence.end_event(newest, 0.0),))

        self._store.update(record.tag, step)

    # Looking up -----------------------------------------------------------------------------

    def resolve(self, tag: str) -> None:
        """Look for a job whose submission left no answer; the watcher calls this now and then."""
        with self._flying(tag) as is_free:
            record = self._store.get(tag)
            if is_free and record and record.state == SUBMITTING and not record.scheduler_job_id:
                self._resolve(record, is_asked=False)

    def _resolve(self, record: JobRecord, is_asked: bool = True) -> Union[Answer, _Retry]:
        if record.intent_at and not self._directories.is_there:
            return _unresolved(record.tag, str(self._directories.missing()))
        try:
            found = self._batch.look_up(record.tag, record.intent_at)
        except errors.CommandFailed as error:
            return _unresolved(record.tag, str(error))
        if found.scheduler_job_id:
            return self._adopt(record, found.scheduler_job_id, found.others)
        retry_at = self._batch.scheduler.retry_at(record.intent_at, record.limit_s)
        if time.time() < retry_at:
            wait_s = retry_at - time.time()
            return _unresolved(
                record.tag, f"whether it was taken will be certain in {wait_s:.0f} s"
            )
        newest = self._store.get(record.tag) or record
        if newest.cancel_requested_at:
            return self._reject(record.tag, _cancelled(), is_told=is_asked)
        return _Retry()

    def _adopt(self, record: JobRecord, scheduler_job_id: str, others: tuple[str, ...]) -> Answer:
        """What was found is the job; every other match is a duplicate."""
        answer = self._store_id(record, scheduler_job_id)
        self._batch.cancel_duplicates(record.tag, others)
        return answer

    # The steps ------------------------------------------------------------------------------

    def _submit_new(self, message: messages.Submit) -> Answer:
        # Only now: limits, and what the scheduler offers, may have changed since it took a job.
        try:
            script = validation.submission(message)
            if objection := self._batch.scheduler.objection(message):
                raise errors.InvalidRequest(objection)
        except errors.InvalidRequest as error:
            return self._reject(message.tag, schedulers.Refusal(error.code, str(error), False))
        # Around the intent too: its limit counts from when its command may run.
        if not self._slots.acquire(timeout=message.limit_s):
            return _busy(message)
        try:
            return self._take_steps(message, script)
        finally:
            self._slots.release()

    def _take_steps(self, message: messages.Submit, script: bytes) -> Answer:
        faults.reach("daemon.submit.1")
        self._make_root()
        self._store_intent(message)
        faults.reach("daemon.submit.2")
        try:
            directory = self._make_directory(message, script)
        except (errors.NotStored, errors.PathRefused, errors.SettingsError) as error:
            reason = error.reason if isinstance(error, errors.NotStored) else "not_stored"
            return self._reject(message.tag, schedulers.Refusal(reason, str(error), True))
        is_early = not self._environment.is_tried
        try:
            environment = self._environment.for_jobs(message.environment)
        except errors.EnvironmentUnread as error:
            return self._reject(message.tag, schedulers.Refusal(error.code, str(error), True))
        if is_early:
            self._store_intent(message)  # again: its limit counts from when its command may run
        faults.reach("daemon.submit.3")
        record = self._store.get(message.tag)
        if record is not None and record.cancel_requested_at:
            return self._reject(message.tag, _cancelled())
        result = self._run(message, directory, environment)
        faults.reach("daemon.submit.5")
        return self._conclude(message, result)

    def _make_root(self) -> None:
        """Before any intent, so that with one a root that is missing is not mounted."""
        if self._directories.is_there:
            return
        if any(r.intent_at and not r.is_final for r in self._store.jobs.values()):
            raise self._directories.missing()
        self._directories.make_root()

    def _store_intent(self, message: messages.Submit) -> None:
        def step(record: Optional[JobRecord]) -> Change:
            kept = record or JobRecord(message.tag)
            intent = JobRecord(
                message.tag,
                attempt=message.attempt,
                limit_s=message.limit_s,
                intent_at=time.time(),
                script_sha256=message.script_sha256,
                name=message.name or self._batch.scheduler.display_name(message),
                cancel_requested_at=kept.cancel_requested_at,
            )
            return Change(intent)

        self._store.update(message.tag, step)

    def _make_directory(self, message: messages.Submit, script: bytes) -> str:
        text = wrapper.render(
            tag=message.tag,
            directory=self._directories.path(message.tag),
            hints_directory=self._hints_directory,
            script_sha256=message.script_sha256,
            identity=self._batch.scheduler.wrapper_identity,
            header=self._batch.scheduler.header(message),
        )
        return self._directories.make(message.tag, script, text)

    def _run(
        self, message: messages.Submit, directory: str, environment: dict[str, str]
    ) -> Union[schedulers.Accepted, schedulers.Refusal, schedulers.Unclear]:
        job = schedulers.Submission(
            tag=message.tag,
            directory=directory,
            resources=message.resources,
            environment=environment,
            umask=self._directories.umask,
            may_requeue=message.may_requeue,
        )
        return self._batch.submit(job, message.limit_s, lambda: faults.reach("daemon.submit.4"))

    def _conclude(
        self,
        message: messages.Submit,
        result: Union[schedulers.Accepted, schedulers.Refusal, schedulers.Unclear],
    ) -> Answer:
        record = self._store.get(message.tag) or JobRecord(message.tag)
        if isinstance(result, schedulers.Accepted):
            return self._store_id(record, result.scheduler_job_id)
        if isinstance(result, schedulers.Refusal):
            return self._reject(message.tag, result)
        logger.warning("submission unclear", extra={"tag": message.tag, "cause": result.message})
        if result.if_absent is not None:
            return self._conclude_refusal(record, result.if_absent)
        resolved = self._resolve(record)
        if isinstance(resolved, _Retry):
            return _unresolved(message.tag, result.message)
        if isinstance(resolved, messages.Error):
            return replace(resolved, message=f"{resolved.message} {result.message}")
        return resolved

    def _conclude_refusal(self, record: JobRecord, refusal: schedulers.Refusal) -> Answer:
        """The scheduler has answered with words that are not known here: a look-up decides."""
        try:
            found = self._batch.look_up(record.tag, record.intent_at)
        except errors.CommandFailed as error:
            return _unresolved(record.tag, f"{refusal.message}; {error}")
        if found.scheduler_job_id:
            return self._adopt(record, found.scheduler_job_id, found.others)
        return self._reject(record.tag, refusal)

    def _store_id(self, record: JobRecord, scheduler_job_id: str) -> Answer:
        def step(newest: Optional[JobRecord]) -> Change:
            submitted = replace(
                newest or record,
                state=SUBMITTED,
                scheduler_job_id=scheduler_job_id,
                submitted_at=time.time(),
            )
            data = {"scheduler_job_id": scheduler_job_id}
            if submitted.name:
                data["name"] = submitted.name
            return Change(submitted, (NewEvent("submitted", data),))

        try:
            self._store.update(record.tag, step)
        except errors.NotStored as error:
            # The scheduler has it: only a look-up may say so, once it can be stored.
            return _unresolved(record.tag, f"its id could not be stored: {error}")
        logger.info("job submitted", extra={"tag": record.tag, "id": scheduler_job_id})
        faults.reach("daemon.submit.6")
        return messages.Submitted(record.tag, scheduler_job_id)

    def _reject(
        self, tag: str, refusal: schedulers.Refusal, is_told: bool = True
    ) -> messages.Rejected:
        """The job is certainly not in the scheduler; an event only if nobody hears the answer."""
        answer = messages.Rejected(tag, refusal.reason, refusal.message, refusal.transient)
        data = {
            "reason": refusal.reason,
            "message": refusal.message,
            "transient": refusal.transient,
        }

        def step(record: Optional[JobRecord]) -> Change:
            rejected = replace(
                record or JobRecord(tag),
                state=REJECTED,
                reason=refusal.reason,
                message=refusal.message,
                is_transient=refusal.transient,
            )
            return Change(rejected, () if is_told else (NewEvent("rejected", data),))

        try:
            self._store.update(tag, step)
        except errors.NotStored as error:
            # True all the same; asked again, the intent will be looked up and found nowhere.
            logger.warning("rejection not stored", extra={"tag": tag, "cause": str(error)})
        logger.info("job rejected", extra={"tag": tag, "reason": refusal.reason})
        return answer


def _cancelled() -> schedulers.Refusal:
    return schedulers.Refusal("cancelled", "The job was cancelled before it was submitted.", False)


def _busy(message: messages.Submit) -> messages.Rejected:
    text = f"Other submissions have kept job {message.tag} waiting for {message.limit_s:g} s."
    return messages.Rejected(message.tag, "busy", text, transient=True)


def _rejection(record: JobRecord) -> messages.Rejected:
    return messages.Rejected(record.tag, record.reason, record.message, record.is_transient)


def _reused(record: JobRecord) -> messages.Rejected:
    text = f"Tag {record.tag} belongs to a job with another script: make a new job of this one."
    return messages.Rejected(record.tag, "tag_reused", text, transient=False)


def _not_stored(tag: str, error: errors.NotStored) -> messages.Rejected:
    return messages.Rejected(tag, error.reason, str(error), transient=True)


def _unresolved(tag: str, why: str) -> messages.Error:
    message = f"Job {tag} may be in the scheduler or not: {why}."
    return messages.Error("unresolved", message, transient=True)

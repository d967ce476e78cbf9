"""What the server may ask about jobs: submit, cancel, delete, compare."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from cluster_client import errors, layout, removal, schedulers, validation
from cluster_client.batch_system import BatchSystem
from cluster_client.job_records import ENDED, REJECTED, SUBMITTED, Change, JobRecord, NewEvent
from cluster_client.job_store import JobStore, Step
from cluster_client.protocol import messages
from cluster_client.submission import Submitter
from cluster_client.watcher import Watcher

logger = logging.getLogger(__name__)

_ADOPT_S = 20.0


class JobRequests:
    """Thread-safe; blocks."""

    def __init__(
        self,
        store: JobStore,
        batch: BatchSystem,
        submitter: Submitter,
        job_working_directory: str,
        watcher: Watcher,
    ) -> None:
        self._store = store
        self._batch = batch
        self._submitter = submitter
        self._root = job_working_directory
        self._watcher = watcher

    def answer(self, message: object) -> object:
        """Carry out one request; raises ClientError."""
        if isinstance(message, messages.Submit):
            return self._submitter.submit(message)
        if isinstance(message, messages.Cancel):
            return self._cancel(message)
        if isinstance(message, messages.Delete):
            return self._delete(message)
        if isinstance(message, messages.Compare):
            return self._compare(message)
        return messages.Error("unknown_message", f"{type(message).__name__} is no request.")

    def _cancel(self, message: messages.Cancel) -> messages.Done:
        """Note durably that the job is to be cancelled; the watcher does it."""
        tag = validation.tag(message.tag)
        found = ""
        if self._store.get(tag) is None:
            found = message.scheduler_job_id or self._batch.look_up(tag, 0.0).scheduler_job_id
        try:
            self._store.update(tag, lambda record: _with_cancel(record, tag, found))
        except errors.NotStored:
            self._watcher.cancel(tag)  # all the same; the server will ask again until it is stored
            raise
        self._watcher.nudge()
        return messages.Done()

    def _delete(self, message: messages.Delete) -> object:
        tag = validation.tag(message.tag)
        record = self._store.get(tag)
        if record is not None and not record.is_final:
            return messages.Error("not_ended", f"Job {tag} has not ended: cancel it first.", True)
        if not layout.is_jobs_root(self._root):
            if not self._ever_submitted():
                return messages.Deleted(tag, is_complete=True)
            raise errors.NotStored(self._root, layout.missing_root(self._root))
        found = removal.claim_of(self._root, tag)
        claim = self._batch.scheduler.claimed_id(found or "")
        path = os.path.join(self._root, tag)
        if record is None and found is not None:
            # The store is new: only what names this tag, and runs no more, may go.
            if not claim:
                raise errors.PathRefused(f"{path} is not known here and holds no claim.")
            if self._runs(schedulers.JobRef(tag, claim)):
                return messages.Error("not_ended", f"Job {tag} still runs as {claim}.", True)
        if record is not None and claim and record.scheduler_job_id not in ("", claim):
            raise errors.PathRefused(f"{path} is claimed by {claim}, which is another job.")
        return removal.remove(self._root, tag)

    def _ever_submitted(self) -> bool:
        """True if any job is known for which there was a directory."""
        known = (*self._store.jobs.values(), *self._store.tombstones.values())
        return any(record.intent_at or record.scheduler_job_id for record in known)

    def _runs(self, job: schedulers.JobRef) -> bool:
        seen = self._batch.queue([job])[0].get(job.tag)
        return seen is not None and seen.state not in (schedulers.ENDED, schedulers.ABSENT)

    def _compare(self, message: messages.Compare) -> messages.Compared:
        asked = [validation.tag(tag) for tag in message.tags]
        try:
            self._adopt(asked)
            self._tell_again(asked)
        except errors.NotStored as error:
            # No greeting without this answer, and it is the full disk's jobs that must be reached.
            logger.warning("compared without a change", extra={"cause": str(error)})
        known = [(tag, self._store.get(tag)) for tag in asked]
        open_tags = {tag for tag, record in self._store.jobs.items() if not record.is_final}
        return messages.Compared(
            jobs=tuple(_state_of(record) for _, record in known if record is not None),
            unknown=tuple(tag for tag, record in known if record is None),
            extra=tuple(sorted(open_tags.difference(asked))),
        )

    def _adopt(self, tags: Sequence[str]) -> None:
        """Jobs that the store does not know (it was lost) but whose directory is there: watch them.

        Nothing is submitted by that, so that nothing can run twice.
        """
        deadline = time.monotonic() + _ADOPT_S
        unknown = [tag for tag in tags if self._store.get(tag) is None]
        for tag in unknown:
            if time.monotonic() > deadline:
                logger.warning("jobs not looked up yet", extra={"count": len(unknown)})
                return
            if not os.path.isdir(os.path.join(self._root, tag)):
                continue
            try:
                found = self._batch.claim(tag) or self._batch.look_up(tag, 0.0).scheduler_job_id
            except errors.CommandFailed as error:
                logger.warning("job not looked up", extra={"tag": tag, "cause": str(error)})
                continue
            if found:
                logger.warning("job adopted", extra={"tag": tag, "id": found})
                self._store.update(tag, _adopted(tag, found))
        self._watcher.nudge()

    def _tell_again(self, tags: Sequence[str]) -> None:
        """Jobs told to be without evidence: the next poll tells what it finds, or that anew."""
        records = {tag: self._store.get(tag) for tag in tags}
        blocked = [tag for tag, record in records.items() if record and record.is_blocked]
        if blocked:
            self._store.update_many([(tag, _not_blocked) for tag in blocked])
            self._watcher.nudge()


def _not_blocked(record: Optional[JobRecord]) -> Optional[Change]:
    return Change(replace(record, is_blocked=False)) if record and record.is_blocked else None


def _adopted(tag: str, scheduler_job_id: str) -> Step:
    def step(record: Optional[JobRecord]) -> Optional[Change]:
        if record is not None:
            return None
        adopted = JobRecord(
            tag, state=SUBMITTED, scheduler_job_id=scheduler_job_id, submitted_at=time.time()
        )
        return Change(adopted, (NewEvent("submitted", {"scheduler_job_id": scheduler_job_id}),))

    return step


def _with_cancel(record: Optional[JobRecord], tag: str, found: str) -> Optional[Change]:
    """The job with its cancel noted; one that was never submitted ends here."""
    now = time.time()
    if record is None and found:
        submitted = JobRecord(tag, state=SUBMITTED, scheduler_job_id=found, submitted_at=now)
        return Change(replace(submitted, cancel_requested_at=now))
    if record is None or record.state == REJECTED:
        text = "The job was cancelled before it was submitted."
        rejected = replace(
            record or JobRecord(tag), state=REJECTED, reason="cancelled", message=text,
            is_transient=False, cancel_requested_at=now, acknowledged_at=0.0,
        )  # fmt: skip
        data = {"reason": "cancelled", "message": text, "transient": False}
        return Change(rejected, (NewEvent("rejected", data),))
    if record.state == ENDED or record.cancel_requested_at:
        return None
    return Change(replace(record, cancel_requested_at=now))


def _state_of(record: JobRecord) -> messages.JobState:
    return messages.JobState(
        tag=record.tag,
        state=record.state,
        scheduler_job_id=record.scheduler_job_id,
        run=record.run,
        outcome=record.outcome,
        exit_code=record.exit_code,
        signal=record.signal,
        reason=record.reason,
        at=record.at,
    )

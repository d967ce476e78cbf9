"""The thread that follows the jobs: hints, status queries, cancels, unresolved submissions.

One query for all jobs; what it says goes through `evidence`. A failed one changes nothing.
No scheduler command runs while no job is open.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

from cluster_client import errors, evidence, exit_records, layout, schedulers
from cluster_client.accountant import Accountant
from cluster_client.batch_system import BatchSystem
from cluster_client.fence import Fence
from cluster_client.filesystem import Filesystem
from cluster_client.job_records import RUNNING, SUBMITTED, SUBMITTING, Change, JobRecord, NewEvent
from cluster_client.job_store import JobStore, Step
from cluster_client.pace import Pace
from cluster_client.protocol import messages
from cluster_client.schedulers import JobRef, Sighting
from cluster_client.submission import Submitter

logger = logging.getLogger(__name__)

_FENCE_INTERVAL_S = 1.0
_QUIET_INTERVAL_S = 5.0
_GRACE_S = 5.0
_RESOLVE_INTERVAL_S = 5.0
_RETRY_CAP_S = 300.0


@dataclass(frozen=True)
class Intervals:
    """Seconds; see configuration."""

    poll_s: float = 10.0
    poll_idle_s: float = 30.0
    hint_s: float = 0.2
    lost_after_s: float = 86400.0


@dataclass
class _Tries:
    """How often something was tried for a job, and when it is due again (monotonic)."""

    count: int = 0
    due_at: float = 0.0

    def next(self, now: float, first_s: float) -> None:
        """Due again after `first_s` twice, then after doubled pauses up to RETRY_CAP_S."""
        self.count += 1
        self.due_at = now + min(_RETRY_CAP_S, first_s * 2 ** max(0, self.count - 2))


class Watcher:
    """start() and stop() from one thread; the rest is thread-safe."""

    last_poll: Optional[messages.Polled] = None

    def __init__(
        self,
        store: JobStore,
        batch: BatchSystem,
        submitter: Submitter,
        fence: Fence,
        fs: Filesystem,
        job_working_directory: str,
        hints_directory: str,
        intervals: Intervals,
        on_fenced: Callable[[errors.Fenced], None],
    ) -> None:
        self._store = store
        self._batch = batch
        self._submitter = submitter
        self._fence = fence
        self._fs = fs
        self._root = job_working_directory
        self._hints_directory = hints_directory
        self._intervals = intervals
        self._on_fenced = on_fenced
        self._accountant = Accountant(store, batch)
        self._pace = Pace(intervals.poll_s, intervals.poll_idle_s)
        self._wanted = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._fence_at = 0.0
        self._resolves: dict[str, _Tries] = {}
        self._cancels: dict[str, _Tries] = {}
        self._asked_cancels: dict[str, float] = {}
        self._sent_cancels: dict[str, float] = {}
        self._absent: dict[str, int] = {}
        self._polls = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, limit_s: float = 10.0) -> None:
        self._is_stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def nudge(self) -> None:
        """Look now: a job was submitted, or is to be cancelled."""
        self._wanted.set()

    def cancel(self, tag: str) -> None:
        """Cancel a job whose cancel could not be stored: on a full disk it is needed most."""
        self._asked_cancels[tag] = time.time()
        self.nudge()

    def _run(self) -> None:
        self._accountant.load()
        while not self._is_stopping.is_set():
            try:
                self._tick()
            except errors.Fenced as error:
                self._on_fenced(error)
                return
            except errors.ClientError as error:
                logger.warning("watching goes on after a failure", extra={"cause": str(error)})
                self._is_stopping.wait(1.0)
            except Exception:
                logger.exception("watching goes on after a surprise")
                self._is_stopping.wait(5.0)
            self._wanted.wait(self._pause_s())
            self._wanted.clear()

    def _pause_s(self) -> float:
        jobs = self._open_jobs()
        if not jobs:
            due_at = self._accountant.next_at()
            if due_at is None:
                return _QUIET_INTERVAL_S
            return max(0.0, min(_QUIET_INTERVAL_S, due_at - time.monotonic()))
        if not any(record.is_watched for record in jobs):
            return self._intervals.hint_s
        return max(0.0, min(self._intervals.hint_s, self._pace.next_at() - time.monotonic()))

    def _open_jobs(self) -> list[JobRecord]:
        return [record for record in self._store.jobs.values() if not record.is_final]

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._fence_at:
            self._fence.check()
            self._fence_at = now + _FENCE_INTERVAL_S
        self._accountant.tell_due()
        jobs = self._open_jobs()
        if not jobs:
            self._read_hints([], now)  # what came after the end was seen
            return
        self._resolve_due(jobs, now)
        self._cancel_due(jobs, now)
        watched = [record for record in jobs if record.is_watched]
        self._read_hints(watched, now)
        if watched and time.monotonic() >= self._pace.next_at():
            self._poll(watched)

    # Submissions without an answer ----------------------------------------------------------

    def _resolve_due(self, jobs: Sequence[JobRecord], now: float) -> None:
        for record in jobs:
            if record.state != SUBMITTING or self._submitter.is_in_flight(record.tag):
                continue
            tries = self._resolves.setdefault(record.tag, _Tries())
            if now >= tries.due_at:
                tries.next(now, _RESOLVE_INTERVAL_S)
                self._submitter.resolve(record.tag)

    # Cancels --------------------------------------------------------------------------------

    def _cancel_due(self, jobs: Sequence[JobRecord], now: float) -> None:
        for record in jobs:
            is_wanted = record.cancel_requested_at or record.tag in self._asked_cancels
            if not (is_wanted and record.is_watched):
                continue
            tries = self._cancels.setdefault(record.tag, _Tries())
            if now >= tries.due_at and self._cancel(record, is_forced=tries.count > 0):
                tries.next(now, _GRACE_S)

    def _cancel(self, record: JobRecord, is_forced: bool) -> bool:
        """Tell the scheduler; False if it did not hear.

        That it is being told is noted first, so that the end is read right.
        """
        is_first = not record.cancel_sent_at and record.tag not in self._sent_cancels
        if is_first:
            self._sent_cancels[record.tag] = time.time()
            self._note(record.tag, _mark_cancel_sent)
        job = JobRef(record.tag, record.scheduler_job_id)
        try:
            answer = self._batch.cancel(job, is_forced)
        except errors.CommandFailed as error:
            logger.warning("cancel failed", extra={"tag": record.tag, "cause": str(error)})
            self._cancels[record.tag].due_at = time.monotonic() + _GRACE_S
            return False
        logger.info(
            "job cancelled",
            extra={"tag": record.tag, "forced": is_forced, "was_alive": answer.was_alive},
        )
        if not answer.was_alive and is_first:  # it had ended by itself
            self._sent_cancels.pop(record.tag, None)
            self._note(record.tag, _unmark_cancel_sent)
        self._pace.expect(f"{record.tag}.cancel", time.monotonic())
        return True

    def _note(self, tag: str, step: Step) -> None:
        """Store what is in memory too; with the disk full the cancel goes on without."""
        try:
            self._store.update(tag, step)
        except errors.NotStored as error:
            logger.warning("cancel not stored", extra={"tag": tag, "cause": str(error)})

    # Hints ----------------------------------------------------------------------------------

    def _read_hints(self, watched: Sequence[JobRecord], now: float) -> None:
        tags = {record.tag for record in watched}
        for name in self._fs.listdir(self._hints_directory):
            tag, _, rest = name.partition(".")
            if tag in tags:
                self._pace.hint(name, rest.partition(".")[0], now)
            elif not self._submitter.is_in_flight(tag):
                self._drop_hint(name)

    def _drop_hint(self, name: str) -> None:
        try:
            self._fs.remove(os.path.join(self._hints_directory, name))
        except errors.NotStored as error:
            logger.warning("hint not removed", extra={"hint": name, "cause": str(error)})

    # Queries --------------------------------------------------------------------------------

    def _poll(self, watched: Sequence[JobRecord]) -> None:
        hints = self._pace.hints
        refs = [JobRef(record.tag, record.scheduler_job_id) for record in watched]
        try:
            sightings, took_s = self._batch.queue(refs)
            view = self._accountant.consult(refs, sightings)
            decided = [ref for ref in refs if ref.tag not in view.undecided]
            steps = [self._step(ref, view.sightings.get(ref.tag)) for ref in decided]
            self._store.update_many(steps)
            self._accountant.note([ref.tag for ref in decided])
        except (errors.CommandFailed, errors.NotStored) as error:
            self._pace.failed(time.monotonic())
            logger.warning("status query without effect", extra={"cause": str(error)})
            return
        self._polls += 1
        self.last_poll = messages.Polled(time.time(), took_s, len(refs), self._polls)
        newest = {record.tag: record for record in self._open_jobs()}
        is_idle = bool(newest) and all(r.state != RUNNING for r in newest.values())
        still_open = [name for name in hints if _is_open(name, newest)]
        kinds = {name.split(".")[1] for name in hints}
        for name in self._pace.succeeded(time.monotonic(), took_s, is_idle, kinds, still_open):
            self._drop_hint(name)
        self._forget(newest)

    def _step(self, ref: JobRef, sighting: Optional[Sighting]) -> tuple[str, Step]:
        """What `sighting` (None: the scheduler does not know it) changes about a job."""
        seen = sighting or Sighting(schedulers.ABSENT)
        try:
            claim = self._other_claim(ref, seen)
            if not claim:
                seen = self._with_exit_record(ref, seen)
        except (errors.CommandFailed, OSError) as error:
            logger.warning("job's files unreadable", extra={"tag": ref.tag, "cause": str(error)})
            return ref.tag, lambda record: None

        def step(record: Optional[JobRecord]) -> Optional[Change]:
            if record is None or not record.is_watched:
                return None
            if record.scheduler_job_id != ref.scheduler_job_id:
                return None
            if claim:
                data = {"scheduler_job_id": claim}
                moved = replace(record, scheduler_job_id=claim, state=SUBMITTED)
                return Change(moved, (NewEvent("submitted", data),))
            if sent_at := self._sent_cancels.get(ref.tag):
                record = replace(record, cancel_sent_at=record.cancel_sent_at or sent_at)
            return evidence.judge(
                record,
                seen,
                time.time(),
                self._intervals.lost_after_s,
                self._accountant.has_accounting,
            )

        return ref.tag, step

    def _other_claim(self, ref: JobRef, seen: Sighting) -> str:
        """Who holds the claim, if it is not `ref`: that one is the job, ours a duplicate."""
        if not seen.may_be_a_duplicate:
            return ""
        claim = self._batch.claim(ref.tag)
        return claim if claim != ref.scheduler_job_id else ""

    def _with_exit_record(self, ref: JobRef, seen: Sighting) -> Sighting:
        """Absent in two good queries in a row, and an exit record: that is an end.

        A query that failed between them says nothing: it neither counts nor interrupts.
        Of an end that the scheduler tells, the record may know more.
        """
        directory = layout.control_of(os.path.join(self._root, ref.tag))
        if seen.state != schedulers.ABSENT:
            self._absent.pop(ref.tag, None)
            if not evidence.is_in_need_of_record(seen):
                return seen
            recorded = exit_records.end(self._fs, directory)
            return evidence.with_record(seen, recorded, exit_records.refusal(self._fs, directory))
        self._absent[ref.tag] = self._absent.get(ref.tag, 0) + 1
        if self._absent[ref.tag] < 2:
            return seen
        return exit_records.end(self._fs, directory) or seen

    def _forget(self, open_jobs: dict[str, JobRecord]) -> None:
        """What was kept in memory about jobs that are over."""
        self._absent = {t: n for t, n in self._absent.items() if t in open_jobs}
        self._cancels = {t: c for t, c in self._cancels.items() if t in open_jobs}
        self._sent_cancels = {t: at for t, at in self._sent_cancels.items() if t in open_jobs}
        for tag in [tag for tag in self._asked_cancels if tag not in open_jobs]:
            self._asked_cancels.pop(tag, None)
        self._resolves = {t: r for t, r in self._resolves.items() if t in open_jobs}


def _is_open(hint: str, jobs: dict[str, JobRecord]) -> bool:
    """True if what the hint says is not known yet."""
    tag, kind = hint.split(".")[:2]
    record = jobs.get(tag)
    return record is not None and not (kind == "start" and record.state == RUNNING)


def _mark_cancel_sent(record: Optional[JobRecord]) -> Optional[Change]:
    if record is None or record.is_final or record.cancel_sent_at:
        return None
    return Change(replace(record, cancel_sent_at=time.time()))


def _unmark_cancel_sent(record: Optional[JobRecord]) -> Optional[Change]:
    if record is None or record.is_final:
        return None
    return Change(replace(record, cancel_sent_at=0.0))
